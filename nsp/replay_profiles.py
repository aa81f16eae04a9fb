# SPDX-License-Identifier: Apache-2.0
"""What profiles would have stopped of what was done: old events asked of the rules as the kernel has them.

Input: batches, pods and profiles. Output: rows of a tally, each with the place in the profile where a rule
would have to be. The rules are compiled and asked by the sensor's own code, as `nsp explain` does; a flow
that was asked before is not asked again. Pure.

What is judged: connections made and accepted, first datagrams, ports that were bound to listen, DNS
questions, and requests and TLS hellos where a profile had them read. Names stand for the addresses that a
believed resolver answered them with. Failure: events that cannot be judged are counted by reason.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, Final

from nsp.replay_done import READERS, Done, payload_of, words_of
from schemas.addresses import to_mapped, to_text
from schemas.errors import SchemaError
from schemas.profile.selector import selects_node, selects_pod
from sensor.policy.errors import PolicyRefused
from sensor.policy.explain import Bind, Explainer
from sensor.policy.layers import DNS_PORT, TCP, UDP, Flow
from sensor.policy.policy import Selection
from sensor.policy.profile import Program, compile_profile
from sensor.policy.reasons import REASONS
from sensor.policy.workloads import Profiles
from stream_apps.correlate.order import Ordering
from stream_apps.learn.conduct import INTERPRETING, script_of
from stream_apps.replay.tally import StopKey, workload_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sensor.policy.explain import Contribution
    from stream_apps.correlate.order import Event
    from stream_apps.correlate.pods import PodTable
    from stream_apps.correlate.programs import Programs
    from stream_apps.replay.tally import Tally

# Distinct flows whose verdict is remembered: 300 bytes each.
MAX_VERDICTS: Final = 200_000
# Workloads whose addresses are remembered, and addresses of each, as stream apps do.
MAX_WORKLOADS: Final = 4096
MAX_ADDRESSES: Final = 4096
# As sensors are started, unless told otherwise: how long an answered address counts.
LEARNED_FLOOR_S: Final = 30
LEARNED_GRACE_S: Final = 60
HOSTNAME_LABEL: Final = "kubernetes.io/hostname"
_NS_PER_S: Final = 1_000_000_000
_MAX_TTL_S: Final = 86_400
_ADDRESS_TYPES: Final = frozenset({1, 28})
_WITH_PORTS: Final = frozenset({TCP, UDP, 132, 33})


@dataclass(frozen=True, slots=True)
class _Stopped:
    """The verdict on one flow of one program."""

    outcome: str
    what: str
    reason: str
    place: str


@dataclass(frozen=True, slots=True)
class _Subject:
    """A workload that a tried profile selects."""

    id: str
    name: str
    explainer: Explainer
    number: int


@dataclass(frozen=True, slots=True)
class Trial:
    """What is tried.

    Attributes:
        profiles: ``SecurityProfile`` records: those that are tried, and those in force beside them.
        tried: Keys of those that are tried; only workloads they select are judged.
        resolvers: Networks of the nodes' DNS servers; none: every server asked is believed.
        now_ns: Wall time; profiles that are over by then do not count.
    """

    profiles: Sequence[Mapping[str, Any]]
    tried: Collection[str]
    resolvers: Sequence[str] = ()
    now_ns: int = 0


class ProfileTrial:
    """Holds batches against profiles.

    Attributes:
        counts: What could not be judged, by reason.
        seen: Events that were judged.
    """

    def __init__(self, trial: Trial, pods: PodTable, programs: Programs, tally: Tally) -> None:
        """Compile the profiles.

        Args:
            trial: What is tried.
            pods: Pods as they are known when a batch comes.
            programs: Which programs interpret scripts.
            tally: Where what would have been stopped is counted.

        Raises:
            PolicyRefused: A profile that a node would refuse.
        """
        self.counts: Counter[str] = Counter()
        self.seen = 0
        self._records = {f"{each['namespace']}/{each['name']}": each for each in trial.profiles}
        self._compiled = {key: compile_profile(each) for key, each in self._records.items()}
        self._tried = frozenset(trial.tried)
        self._pods = pods
        self._programs = programs
        self._tally = tally
        own = [address for each in self._compiled.values() for address in each.resolvers]
        self._resolvers = tuple(ip_network(each, strict=False) for each in (*trial.resolvers, *own))
        self._believes_all = not trial.resolvers
        self._now_ns = trial.now_ns
        self._ordering = Ordering()
        self._subjects: dict[tuple[object, ...], _Subject | None] = {}
        self._explainers: dict[tuple[object, ...], tuple[Explainer, int]] = {}
        self._verdicts: dict[tuple[int, Program, Done, frozenset[str]], _Stopped | None] = {}
        self._learned: OrderedDict[tuple[str, str], OrderedDict[str, dict[str, int]]] = OrderedDict()
        self._believed: dict[str, bool] = {}

    def batch(self, batch: dict[str, Any], *, counts: bool) -> None:
        """See :class:`stream_apps.replay.session.Beside`."""
        events = self._ordering.admit(batch).events
        subjects = [self._subject(batch["node"], each) for each in batch["workloads"]]
        if not any(subjects):
            return
        processes = batch["processes"]
        offset_ns = batch["clock"]["wall_ns"] - batch["clock"]["boot_ns"]
        programs: dict[int, Program] = {}
        for kind, event in events:
            reader = READERS.get(kind)
            index = event["process"]
            if reader is None or not 0 < index < len(processes):
                continue
            image = processes[index]
            subject = subjects[image["workload"]] if image["workload"] < len(subjects) else None
            if subject is None:
                continue
            if kind == "nsp.DnsAnswer":
                self._learn(batch["node"], subject, event, event["ktime_ns"] + offset_ns)
            elif counts:
                program = programs.get(index) or programs.setdefault(index, self._program(image))
                self._judge(batch["node"], subject, program, (kind, event), event["ktime_ns"] + offset_ns)

    def _judge(self, node: str, subject: _Subject, program: Program, event: Event, wall_ns: int) -> None:
        kind, fields = event
        done = READERS[kind](fields)
        if done is None:
            return
        if done.protocol not in _WITH_PORTS:
            self.counts["no_ports"] += 1
            return
        self.seen += 1
        names = self._names(node, subject, done.address, wall_ns) if done.way != "bind" else frozenset()
        key = subject.number, program, done, names
        try:
            stopped = self._verdicts[key]
        except KeyError:
            if len(self._verdicts) >= MAX_VERDICTS:
                self._verdicts.clear()
            stopped = self._verdicts[key] = self._ask(subject, program, done, names)
        if stopped is not None:
            row = StopKey(
                stopped.outcome, subject.name, str(program), stopped.what, stopped.reason, stopped.place
            )
            self._tally.stop(row, wall_ns, node, fields["position"])

    def _ask(self, subject: _Subject, program: Program, done: Done, names: frozenset[str]) -> _Stopped | None:
        asked = self._question(done, names)
        if asked is None:
            self.counts["unreadable"] += 1
            return None
        if subject.explainer.verdict(asked, program).outcome == "allowed":
            return None
        found = subject.explainer.explain(subject.name, asked, program)
        verdict = found.verdict
        if verdict is None:
            return None
        places = [
            _place(each, answer.field, program)
            for each in found.contributions
            for answer in (each.asked.answers if each.asked else ())
            if answer.reason
        ]
        return _Stopped(verdict.outcome, words_of(done, names), REASONS[verdict.reason], "; ".join(places))

    def _question(self, done: Done, names: frozenset[str]) -> Flow | Bind | None:
        if done.way == "bind":
            return Bind(done.protocol, done.local_port)
        try:
            address = to_mapped(done.address)
        except SchemaError:
            return None
        to_resolver = done.remote_port == DNS_PORT and done.way == "out" and self._believes(done.address)
        direction = "in" if done.way == "in" else "either" if done.protocol == UDP else "out"
        return Flow(
            direction,  # type: ignore[arg-type] # one of its three
            done.protocol,
            address,
            done.remote_port,
            done.local_port,
            names,
            to_resolver,
            payload_of(done.said),
        )

    def _program(self, image: Mapping[str, Any]) -> Program:
        interprets = self._programs.role(image) in INTERPRETING
        path = image["executable"].removesuffix(" (deleted)")
        return Program(path, script_of(image["argv"]) if interprets else "")

    # Whom the profiles select.

    def _subject(self, node: str, workload: Mapping[str, Any]) -> _Subject | None:
        pod = self._pods.of_workload(workload)
        key: tuple[object, ...]
        if pod is not None:
            key = (workload["id"], pod.namespace, tuple(sorted(pod.labels.items())))
        else:
            key = (node, workload["id"], workload["cgroup_path"], workload["unit"])
        if key not in self._subjects:
            if len(self._subjects) >= MAX_VERDICTS:
                self._subjects.clear()
            self._subjects[key] = self._found(node, workload)
        return self._subjects[key]

    def _found(self, node: str, workload: Mapping[str, Any]) -> _Subject | None:
        described = self._pods.describe(workload)
        if not self._tally.wanted.workload(described):
            return None
        selections = self._selections(node, workload)
        if not any(each.profile.key in self._tried for each in selections):
            return None
        key = tuple((each.profile.key, each.executables) for each in selections)
        if key not in self._explainers:
            try:
                self._explainers[key] = Explainer(selections, self._now_ns), len(self._explainers)
            except PolicyRefused:
                self.counts["profiles_not_united"] += 1
                return None
        return _Subject(workload["id"], workload_of(described), *self._explainers[key])

    def _selections(self, node: str, workload: Mapping[str, Any]) -> list[Selection]:
        pod = self._pods.of_workload(workload)
        if pod is not None:
            return [
                Selection(self._compiled[key])
                for key, each in self._records.items()
                if selects_pod(each, pod.namespace, pod.labels)
            ]
        if workload["kind"] == "POD":
            return []
        here = Profiles(node, "allow")
        for key, each in self._records.items():
            if each["scope"] == "NODE" and selects_node(each, {HOSTNAME_LABEL: node}):
                here.put(self._compiled[key])
        return here.selections(_Governed(workload))

    # Which names stand for an address.

    def _believes(self, server: str) -> bool:
        if self._believes_all:
            return True
        known = self._believed.get(server)
        if known is None:
            try:
                known = any(_inside(server, each) for each in self._resolvers)
            except SchemaError:
                known = False
            if len(self._believed) >= MAX_ADDRESSES:
                self._believed.clear()
            self._believed[server] = known
        return known

    def _learn(self, node: str, subject: _Subject, answer: Mapping[str, Any], wall_ns: int) -> None:
        if answer["rcode"] or not self._believes(answer["server_address"]):
            return
        place = node, subject.id
        known = self._learned.setdefault(place, OrderedDict())
        self._learned.move_to_end(place)
        if len(self._learned) > MAX_WORKLOADS:
            self._learned.popitem(last=False)
            self.counts["names_forgotten"] += 1
        for record in answer["records"]:
            if record["type"] in _ADDRESS_TYPES:
                lives_s = max(LEARNED_FLOOR_S, min(record["ttl_s"], _MAX_TTL_S)) + LEARNED_GRACE_S
                until_ns = wall_ns + lives_s * _NS_PER_S
                names = known.setdefault(record["data"], {})
                names[answer["name"]] = max(until_ns, names.get(answer["name"], 0))
                known.move_to_end(record["data"])
        while len(known) > MAX_ADDRESSES:
            known.popitem(last=False)
            self.counts["names_forgotten"] += 1

    def _names(self, node: str, subject: _Subject, address: str, wall_ns: int) -> frozenset[str]:
        known = self._learned.get((node, subject.id))
        names = known.get(address) if known else None
        if not names:
            return frozenset()
        return frozenset(name for name, until_ns in names.items() if wall_ns <= until_ns)


class _Governed:
    """A ``Workload`` record as :class:`sensor.policy.workloads.Governed`."""

    __slots__ = ("cgroup_path", "id", "kind", "unit")

    def __init__(self, workload: Mapping[str, Any]) -> None:
        self.id: str = workload["id"]
        self.kind: str = workload["kind"]
        self.cgroup_path: str = workload["cgroup_path"]
        self.unit: str | None = workload["unit"]


def _inside(server: str, network: Any) -> bool:
    address = ip_network(to_text(to_mapped(server)))
    return address.version == network.version and address.subnet_of(network)


def _place(said: Contribution, field: str, program: Program) -> str:
    """Where a rule would have to be; a program without rules and default needs some of its own."""
    spec = said.spec if said.spec.startswith("spec.") else f"spec.processes[{program}].network"
    return f"{said.profile} {spec}: {field}"
