# SPDX-License-Identifier: Apache-2.0
"""``nsp.profile-violation``: a workload did what its profile does not allow.

Input: refusals by a profile (calls, packets, DNS questions, HTTP requests, TLS hellos), also by profiles that
only alert. What the kernel judged is taken as it is. One finding is a workload, a reason and a destination: a
program that tries again and again is one alert, with their number, and so is one that tries every address
there is once it has tried many. No response is bound to the rule: what the profile enforces is refused.

Failure: the table of destinations is bounded; a workload forgotten has its destinations told anew.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from stream_apps.detect.egress import PROTOCOL_NAMES, QUESTION, REFUSAL
from stream_apps.detect.rule import RANK, Destination, ProfileVerdict, Rule, Severity, Sighting, Suspect
from stream_apps.detect.scene import endpoint, shown
from stream_apps.learn.conduct import INTERPRETING, script_of
from stream_apps.profiles.place import place_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_apps.detect.exclusions import Exclusion
    from stream_apps.detect.scene import Scene
    from stream_apps.profiles.desk import ProfileDesk

RULE: Final = Rule(
    id="nsp.profile-violation",
    title="A workload did what its profile does not allow",
    severity="HIGH",
    attack=(),
)


@dataclass(frozen=True, slots=True)
class _Reason:
    """What a layer's refusal is worth, which techniques look like it, and how it is said."""

    severity: Severity
    attack: tuple[str, ...]
    words: str


_REASONS: Final = {
    "UNKNOWN_WORKLOAD": _Reason("LOW", (), "no profile decision is known for it yet"),
    "L3_PROTOCOL": _Reason("MEDIUM", ("T1095",), "no rule allows that network protocol"),
    "L4_PROTOCOL": _Reason("MEDIUM", ("T1571",), "no rule allows that protocol and port"),
    "ADDRESS": _Reason("MEDIUM", ("T1071",), "no rule allows that address"),
    "DNS_NAME": _Reason("MEDIUM", ("T1071.004",), "no rule allows to ask for that name"),
    "L7_PROTOCOL": _Reason("MEDIUM", ("T1071",), "no rule allows that application protocol"),
    "HTTP_REQUEST": _Reason("MEDIUM", ("T1071.001",), "no rule allows that request"),
    "TLS_SNI": _Reason("MEDIUM", ("T1071.001",), "no rule allows that server name"),
    "OPAQUE": _Reason("MEDIUM", ("T1573",), "the payload cannot be read"),
    "RAW_SOCKET": _Reason("HIGH", ("T1095", "T1040"), "raw sockets are not allowed"),
}
# Somebody from outside tried; the workload did nothing.
_FROM_OUTSIDE: Final = _Reason("LOW", ("T1046",), "no rule lets it in")

REQUEST: Final = "nsp.HttpRequest"
HELLO: Final = "nsp.TlsHello"

_DID: Final = {
    "CONNECT": "connect to {where}",
    "SENDMSG": "send to {where}",
    "PACKET_OUT": "send packets to {where}",
    "PACKET_IN": "receive packets from {where}",
    "BIND": "serve on {local}",
    "RAW_SOCKET": "open a raw socket",
}
_INBOUND: Final = frozenset({"PACKET_IN", "BIND"})
# What comes to the same: the call that is refused once, and the packets of a connection that was open.
_WAYS: Final = {"CONNECT": "out", "SENDMSG": "out", "PACKET_OUT": "out", "PACKET_IN": "in"}
_TCP: Final = 6
# What was said describes an alert better than that a packet was refused.
_WEIGHT_SAID: Final = 1
# Destinations of one workload that are told one by one; a scan of more is one finding a reason.
MAX_DESTINATIONS: Final = 32
# Workloads whose destinations are remembered: 32 numbers each.
MAX_WORKLOADS: Final = 20_000
_GROUP_BYTES: Final = 6
# Programs times reasons whose place in a profile is remembered.
MAX_PLACES: Final = 4096


@dataclass(slots=True)
class _Known:
    """Destinations of a workload, since a time of its node's boot clock."""

    since_ns: int
    groups: set[int] = field(default_factory=set)


class ProfileViolation:
    """The detector.

    Args:
        profiles: Knows which profile has a generation.
        exclusions: What is known and wanted.
        severity: The highest it gives.
        window_ns: After so long a workload's destinations are told one by one again.
    """

    kinds: Sequence[str] = (REFUSAL, QUESTION, REQUEST, HELLO)
    settings: Sequence[str] = ("rule", "_exclusions", "_window_ns")

    def __init__(
        self,
        profiles: ProfileDesk,
        exclusions: Sequence[Exclusion] = (),
        severity: Severity = RULE.severity,
        window_ns: int = 600_000_000_000,
    ) -> None:
        self.rule = Rule(RULE.id, RULE.title, severity, RULE.attack)
        self._profiles = profiles
        self._exclusions = tuple(exclusions)
        self._window_ns = window_ns
        self._places: dict[tuple[object, ...], str] = {}
        self._known: OrderedDict[tuple[str, str], _Known] = OrderedDict()

    def watch(self, scene: Scene) -> Mapping[int, Suspect]:
        """See :class:`stream_apps.detect.rule.Detector`: anybody."""
        return {index: Suspect(index) for index in range(len(scene.view.processes))}

    def judge(self, scene: Scene, suspect: Suspect, kind: str, event: Mapping[str, Any]) -> Sighting | None:
        """See :class:`stream_apps.detect.rule.Detector`."""
        if kind != REFUSAL and event.get("verdict", "ALLOWED") == "ALLOWED":
            return None
        if kind == QUESTION:
            return self._question(scene, suspect, event)
        reason = _REASONS.get(event["reason"])
        if reason is None:
            return None
        if kind == REFUSAL:
            return self._flow(scene, suspect, event, reason, _DID.get(event["hook"], "reach {where}"))
        way = {"hook": "PACKET_IN" if event["inbound"] else "PACKET_OUT", "protocol": _TCP}
        return self._flow(scene, suspect, {**event, **way}, reason, _said(kind, event))

    def _question(self, scene: Scene, suspect: Suspect, event: Mapping[str, Any]) -> Sighting | None:
        reason = _REASONS.get(event["reason"], _REASONS["DNS_NAME"])
        name: str = event["name"]
        server: str = event["server_address"]
        trusted = name if scene.names.is_trusted(server) else None
        if self._excluded(scene, suspect, server, trusted):
            return None
        asked = f"ask {server} for {shown(name) or 'what cannot be read'}"
        verdict = self._verdict(scene, suspect, event, inbound=False)
        says = self._says(asked, reason, event, verdict)
        return self._sighting(
            scene, suspect, event, reason, says, (name,), dns_name=name or None, verdict=verdict
        )

    def _flow(
        self, scene: Scene, suspect: Suspect, event: Mapping[str, Any], reason: _Reason, did: str
    ) -> Sighting | None:
        hook: str = event["hook"]
        address: str = event["remote_address"]
        port: int = event["remote_port"]
        known = scene.name_behind(suspect.actor, address, event["ktime_ns"])
        if self._excluded(scene, suspect, address, known.name if known and known.trusted else None):
            return None
        if hook == "PACKET_IN" and event["reason"] != "UNKNOWN_WORKLOAD":
            reason, port = _FROM_OUTSIDE, event["local_port"]
        protocol = PROTOCOL_NAMES.get(event["protocol"], f"protocol {event['protocol']}")
        where = f"{endpoint(address, event['remote_port'])}/{protocol}"
        where += f" ({shown(known.name)})" if known else ""
        local = f"{endpoint(event['local_address'], event['local_port'])}/{protocol}"
        did = did.replace("{where}", where).replace("{local}", local)
        verdict = self._verdict(scene, suspect, event, inbound=hook in _INBOUND)
        says = self._says(did, reason, event, verdict)
        leads = hook not in {"BIND", "RAW_SOCKET"}
        return self._sighting(
            scene, suspect, event, reason, says, (_WAYS.get(hook, hook), address, port, event["protocol"]),
            weight=_WEIGHT_SAID if "verdict" in event else 0,
            destination=Destination(address, event["remote_port"], event["protocol"]) if leads else None,
            dns_name=known.name if known else None, verdict=verdict,
        )  # fmt: skip

    def _verdict(
        self, scene: Scene, suspect: Suspect, event: Mapping[str, Any], *, inbound: bool
    ) -> ProfileVerdict:
        """What is in force, and what will be once the profile's dry run is over."""
        generation: int = event["generation"]
        keys = self._profiles.profiles_at(generation)
        let_through = event.get("alerted_only", False) or event.get("verdict") == "ALERTED"
        pending = let_through and any(self._profiles.is_pending(key) for key in keys)
        return ProfileVerdict(
            in_force="allowed" if let_through else "refused",
            pending="refused" if pending else "",
            profile=", ".join(map(shown, keys)),
            generation=generation,
            reason=event["reason"],
            place=self._place(scene, suspect, event, keys, inbound=inbound),
        )

    def _place(
        self,
        scene: Scene,
        suspect: Suspect,
        event: Mapping[str, Any],
        keys: tuple[str, ...],
        *,
        inbound: bool,
    ) -> str:
        """Where a rule would have to be; a flood of refusals asks for few different ones."""
        image = scene.view.processes[suspect.actor]
        script = script_of(image["argv"]) if scene.view.roles[suspect.actor] in INTERPRETING else ""
        asked = event["generation"], keys, image["executable"], script, event["reason"], inbound
        known = self._places.get(asked)
        if known is None:
            places = [
                place_of(record, image["executable"], script, event["reason"], inbound=inbound)
                for key in keys
                if (record := self._profiles.book.record(key)) is not None
            ]
            if len(self._places) >= MAX_PLACES:
                self._places.clear()
            known = self._places[asked] = ", ".join(map(shown, dict.fromkeys(places)))
        return known

    @staticmethod
    def _says(did: str, reason: _Reason, event: Mapping[str, Any], verdict: ProfileVerdict) -> str:
        if event["reason"] == "UNKNOWN_WORKLOAD":
            by = "the node's rule for unknown workloads"
        elif verdict.profile:
            by = f"profile {verdict.profile}"
        else:
            by = f"a profile of generation {verdict.generation}"
        done = "would be refused" if verdict.in_force == "allowed" else "was refused"
        says = f"tried to {did} and {done} by {by}: {reason.words}"
        if not verdict.pending:
            return says
        rule = f" by rule {verdict.place}" if verdict.place else ""
        return f"{says} (in force: allowed; pending: would be denied{rule})"

    def _sighting(
        self,
        scene: Scene,
        suspect: Suspect,
        event: Mapping[str, Any],
        reason: _Reason,
        says: str,
        to: tuple[object, ...],
        **where: Any,
    ) -> Sighting:
        return Sighting(
            min(reason.severity, self.rule.severity, key=RANK.__getitem__),
            summary=f"{event['reason'].lower()}: {says}",
            says=says,
            attack=reason.attack,
            group=self._group(scene, suspect, event, to),
            **where,
        )

    def _group(self, scene: Scene, suspect: Suspect, event: Mapping[str, Any], to: tuple[object, ...]) -> int:
        workload = scene.view.workload_ids[suspect.actor]
        key = scene.view.node, workload
        known = self._known.get(key)
        if known is None or not 0 <= event["ktime_ns"] - known.since_ns < self._window_ns:
            known = self._known[key] = _Known(event["ktime_ns"])
            if len(self._known) > MAX_WORKLOADS:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        group = _number(workload, event["reason"], *to)
        if group not in known.groups:
            if len(known.groups) >= MAX_DESTINATIONS:
                return _number(workload, event["reason"])
            known.groups.add(group)
        return group

    def _excluded(self, scene: Scene, suspect: Suspect, address: str, trusted_name: str | None) -> bool:
        return any(
            each.covers(scene, suspect) and each.covers_destination(address, trusted_name)
            for each in self._exclusions
        )


def _said(kind: str, event: Mapping[str, Any]) -> str:
    """What was said, hostile text escaped, with a place for where."""
    preposition = "from" if event["inbound"] else "to"
    if kind == HELLO:
        name = _brief(event["server_name"]) or "no name"
        return f"{'accept' if event['inbound'] else 'begin'} TLS for {name} {preposition} {{where}}"
    host = f" (Host {_brief(event['host'])})" if event["host"] else ""
    verb = "receive" if event["inbound"] else "send"
    return f"{verb} {_brief(event['method'])} {_brief(event['uri'])}{host} {preposition} {{where}}"


def _brief(text: str) -> str:
    """A brace would be taken for the place of where."""
    return shown(text).replace("{", "(").replace("}", ")")


def _number(*parts: object) -> int:
    text = "\n".join(map(str, parts)).encode(errors="replace")
    return 1 + int.from_bytes(blake2b(text, digest_size=_GROUP_BYTES).digest())
