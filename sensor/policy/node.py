# SPDX-License-Identifier: Apache-2.0
"""The profiles of this node, in the kernel: what enforcement hands its orders to.

Input: profiles with the pods they select, the pods the node has, and its cgroups (sensor/workload). Output:
policies by slot, the slots of cgroups, names of cgroups to come, resolvers. Called from the enforcement
thread; the table of workloads changes in the drain's and says so by ``changes``.

Failure: a refused profile leaves what was in force; what the kernel has no room for is told by profile and
tried again. ``counters`` is read by the metrics.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from schemas.addresses import to_mapped
from sensor.enforce.profiles import ProfileResult
from sensor.kernel.errors import KernelError
from sensor.policy import layout
from sensor.policy.apply import PolicyTables
from sensor.policy.believed import Believed, resolver_keys
from sensor.policy.errors import PolicyRefused
from sensor.policy.exits import keep_open
from sensor.policy.expected import POD_PARENT_NAMES
from sensor.policy.layout import name_key
from sensor.policy.learned import LearnedSweep
from sensor.policy.names import exact_key
from sensor.policy.policy import unknown_policy
from sensor.policy.profile import CompiledProfile, compile_profile
from sensor.policy.reconcile import SETTLING_NS, Reconciler, Report
from sensor.policy.safety import Protected, check_profile
from sensor.policy.workloads import Profiles

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from sensor.enforce.clock import Clock
    from sensor.kernel.policy_state import ResolverKey
    from sensor.policy.ports import NodeMaps
    from sensor.policy.remembered import Answer, RememberedAnswers
    from sensor.policy.started_with import StartedWith
    from sensor.workload.table import Workload

# Freeing waits five seconds anyway; and a second late is early enough.
_COLLECT_NS: Final = 1_000_000_000
# Whoever cached an address or keeps a connection may come back with it for so long, then resolves again.
_RECALLED_NS: Final = 600_000_000_000


class Workloads(Protocol):
    """What is asked of sensor/workload/table.py."""

    @property
    def changes(self) -> int:
        """Grows when a workload's cgroup appears or goes."""

    def governed(self) -> list[Workload]:
        """Every cgroup that belongs to a workload."""

    def slots_held(self) -> list[tuple[Workload, int]]:
        """The same with the slot the kernel has for each."""

    def place(self, slot_of: Callable[[Workload], int | None]) -> None:
        """Give every cgroup its slot, now and when it appears; None leaves it what it has."""


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What the operator says of this node.

    Attributes:
        node: Its name.
        unknown_workload: ``allow``, ``alert`` or ``deny``.
        resolvers: DNS servers every workload may believe.
        learned_floor_ns: How long at least an answered address counts,
        learned_grace_ns: and how long beyond its TTL.
        protected: What no profile may cut.
        guards_pods: Whether what appears where Kubernetes has its pods is unknown at first.
    """

    node: str
    unknown_workload: str
    resolvers: tuple[str, ...]
    learned_floor_ns: int
    learned_grace_ns: int
    protected: Protected
    guards_pods: bool = True


class NodePolicies:
    """Profiles to kernel, on one node."""

    def __init__(
        self,
        settings: NodeSettings,
        maps: NodeMaps,
        workloads: Workloads,
        clock: Clock,
        started_with: StartedWith | None = None,
        remembered: RememberedAnswers | None = None,
    ) -> None:
        self._settings = settings
        self._maps = maps
        self._workloads = workloads
        self._clock = clock
        waits = POD_PARENT_NAMES if settings.guards_pods else ()
        self._profiles = Profiles(settings.node, settings.unknown_workload, waits)
        self._tables = PolicyTables(maps)
        self._reconciler = Reconciler(maps, self._tables, self._profiles)
        self._selected: dict[str, frozenset[str]] = {}
        self._known: frozenset[str] = frozenset()
        self._seen_changes = -1
        self._expiry_ns: int | None = None
        self._collect_at_ns = 0
        self._believed = Believed(maps, settings.resolvers, started_with)
        self._sweep = LearnedSweep(maps)
        self._remembered = remembered
        # Workload cgroups that get their first profile, with their cgroups, and until when.
        self._settling: dict[int, set[int]] = {}
        self._settled_ns = 0
        # Policies an earlier sensor put in force, until somebody speaks of their workload: that nothing on
        # the topic mentions them any more is no order to lift them.
        self._adopted: dict[str, int] = {}
        self._host_spoken_of = False

    @property
    def counters(self) -> Mapping[str, int]:
        """What was done and what went wrong, for the metrics."""
        return {**self._tables.counters, **self._reconciler.counters, **self._sweep.counters}

    def start(self) -> None:
        """Take over what an earlier sensor left; before the first order.

        Raises:
            KernelError: The maps cannot be read or written.
            NotAppliedError: Likewise.
        """
        self._maps.set_learned_times(self._settings.learned_floor_ns, self._settings.learned_grace_ns)
        keep_open(self._maps, self._settings.protected.break_glass)
        self._reconciler.adopt(self._settings.node, self._workloads.slots_held())
        in_force, slots = self._tables.slots(), self._profiles.slots
        self._adopted = {
            subject: slot
            for subject in slots.subjects()
            if (slot := slots.get(subject)) is not None and slot in in_force
        }
        self._believed.adopt()
        # At once, not with the first order: Kafka may be away, and pods start.
        unknown = {layout.SLOT_UNKNOWN: unknown_policy(self._settings.unknown_workload)}
        for error in self._tables.apply(unknown, self._profiles.rule_sets).values():
            raise error

    def put(self, record: Mapping[str, Any], workloads: Collection[str]) -> str:
        """A profile is there, or is another now; returns why it is refused, or an empty text."""
        try:
            profile = compile_profile(record)
            check_profile(profile, self._settings.protected, workloads)
            self._profiles.put(profile)
        except PolicyRefused as refusal:
            return str(refusal)
        self._selected[profile.key] = frozenset(workloads)
        self._host_spoken_of |= profile.node_scope
        return ""

    def drop(self, key: str) -> None:
        """A profile is gone."""
        self._profiles.drop(key)
        self._selected.pop(key, None)
        self._host_spoken_of = True  # it may have been one of scope NODE

    def known(self, workloads: Collection[str]) -> None:
        """These are the pods the node has."""
        self._known = frozenset(workloads)

    def apply(self) -> Mapping[str, ProfileResult]:
        """Bring the kernel to what is wanted; results by profile key."""
        self._seen_changes = self._workloads.changes
        wall_ns = self._clock.wall_ns()
        self._select()
        self._keep_adopted()
        # Before the rules: whoever they let ask must be answered by somebody who is believed.
        problem = self._believe()
        report = self._reconciler.reconcile(
            self._workloads.governed(), wall_ns, self._clock.boot_ns(), self._adopted.values()
        )
        self._place(report)
        self._expiry_ns = self._profiles.next_expiry(wall_ns)
        return {key: self._result(key, report, problem) for key in sorted(self._profiles.keys())}

    def _keep_adopted(self) -> None:
        pods = self._profiles.selected_pods()
        there = {self._profiles.subject_of(each) for each in self._workloads.governed()}
        for subject in list(self._adopted):
            spoken_of = self._host_spoken_of if subject.startswith("host/") else subject in pods
            if spoken_of or subject not in there:
                del self._adopted[subject]

    def _select(self) -> None:
        pods: dict[str, set[str]] = {pod: set() for pod in self._known}
        for key, selected in self._selected.items():
            for pod in selected:
                pods.setdefault(pod, set()).add(key)
        for pod in self._profiles.selected_pods() - pods.keys():
            self._profiles.forget(pod)
        for pod, keys in pods.items():
            self._profiles.select(pod, keys)

    def _place(self, report: Report) -> None:
        slots = dict(report.slots)
        subject_of = self._profiles.subject_of
        self._workloads.place(lambda workload: slots.get(subject_of(workload)))

    def _believe(self) -> str:
        """Resolvers, and what those said who get their first profile now; returns what the kernel refused."""
        named: set[ResolverKey] = set()
        workloads = self._workloads.governed()
        for key, pods in self._selected.items():
            profile = self._profiles.get(key)
            if profile and profile.resolvers:
                for workload in workloads:
                    if workload.id in pods:
                        named |= resolver_keys(workload.workload_cgroup_id, profile.resolvers)
        try:
            self._believed.update(workloads, named)
            self._settle(workloads)
            self._recall()
        except KernelError as error:
            return str(error)
        return ""

    def _settle(self, workloads: Collection[Workload]) -> None:
        for each in workloads:
            slot = self._profiles.slots.get(self._profiles.subject_of(each))
            governed = slot is not None and self._tables.in_force(slot) is not None
            if not governed and self._profiles.selections(each):
                self._settling.setdefault(each.workload_cgroup_id, set()).add(each.cgroup_id)
                self._settled_ns = self._clock.boot_ns() + 2 * SETTLING_NS

    def _recall(self) -> None:
        """Give the kernel what the settling were answered before; again until the events have caught up."""
        until_ns = self._clock.boot_ns() + _RECALLED_NS
        for workload_cgroup_id, cgroup_ids in self._settling.items():
            for answer in self._remembered.of(cgroup_ids) if self._remembered else ():
                name = _name_of(answer)
                if name and self._believed.believes(workload_cgroup_id, answer.server):
                    for address in answer.addresses:
                        self._maps.learn_before(workload_cgroup_id, to_mapped(address), until_ns, name)

    def _settled(self, now_ns: int) -> None:
        try:
            self._recall()
        except KernelError:
            self._seen_changes = -1  # the next plan tells it
        if now_ns >= self._settled_ns:
            self._settling.clear()

    def _result(self, key: str, report: Report, problem: str) -> ProfileResult:
        profile = self._profiles.get(key)
        if profile is None:
            return ProfileResult()
        subjects = self._subjects_of(profile, report.slots)
        errors = [report.failed[each] for each in subjects if each in report.failed]
        refused = next((str(error) for error in errors if not error.retryable), "")
        failed = next((str(error) for error in errors if error.retryable), problem)
        return ProfileResult(len(subjects), profile.entries, refused, failed)

    def _subjects_of(self, profile: CompiledProfile, slots: Mapping[str, int]) -> list[str]:
        if not profile.node_scope:
            return sorted(self._selected.get(profile.key, frozenset()) & slots.keys())
        return sorted(
            {
                self._profiles.subject_of(each)
                for each in self._workloads.governed()
                if any(found.profile is profile for found in self._profiles.selections(each))
            }
        )

    def tick(self) -> bool:
        """Free what is not used any more; True when apply() has something to do."""
        now_ns = self._clock.boot_ns()
        if self._settling:
            self._settled(now_ns)
        if now_ns >= self._collect_at_ns:
            self._collect_at_ns = now_ns + _COLLECT_NS
            self._tables.collect(now_ns)
            self._look_after(now_ns)
        expired = self._expiry_ns is not None and self._expiry_ns <= self._clock.wall_ns()
        return expired or self._workloads.changes != self._seen_changes

    def _look_after(self, now_ns: int) -> None:
        """Workloads that had no process yet, and addresses that have expired."""
        workloads = self._workloads.governed()
        if self._believed.waiting:
            try:
                self._believed.update(workloads)
            except KernelError:  # the next plan tells it
                self._seen_changes = -1
        self._sweep.tick(now_ns, {each.workload_cgroup_id for each in workloads})

    def usage(self) -> Mapping[str, int]:
        """Entries in the maps, for the metrics."""
        return self._tables.usage()


def _name_of(answer: Answer) -> tuple[int, bytes] | None:
    """Id and key of an answered name; None: no rule can be about it."""
    try:
        key = name_key(exact_key(answer.name.lower()))
    except (PolicyRefused, ValueError):
        return None
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little"), key
