# SPDX-License-Identifier: Apache-2.0
"""``nsp.drift``: a workload does what it never did while it was learned.

Input: programs that begin, destinations, ports listened on; and a :class:`Baseline` that knows what a
workload did. Told is, once a workload and behaviour, what the baseline denies; what it does not know (still
learning, events lost) is not. Without a baseline this costs nothing: no handler is registered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from stream_apps.detect.bounded import Bounded
from stream_apps.detect.character import DROPPED, character
from stream_apps.detect.contact import destination_value
from stream_apps.detect.egress import CONNECT, DATAGRAM, REFUSAL
from stream_apps.detect.observer import Frame, Observer
from stream_apps.detect.reverse_shell import LISTEN
from stream_apps.detect.rule import Destination, Rule, Sighting
from stream_apps.detect.scene import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_apps.detect.baseline import Baseline, Kind
    from stream_apps.detect.exclusions import Exclusion
    from stream_apps.detect.observer import Handler
    from stream_apps.detect.rule import Severity

RULE: Final = Rule(
    id="nsp.drift",
    title="A workload does what it never did while it was learned",
    severity="HIGH",
    attack=(),
)
EXEC: Final = "nsp.ProcessExec"

# Behaviours told, and those asked for lately, of all workloads; one forgotten is told or asked for again.
MAX_KEPT: Final = 100_000
# From here on the kernel gives ports to whoever wants any.
EPHEMERAL_PORTS: Final = 32_768
_TOLD_NS: Final = 86_400_000_000_000
# What the baseline does not deny is asked for again after this: it may have learned, or forgotten.
_ASKED_NS: Final = 60_000_000_000
_VERBS: Final[dict[Kind, str]] = {
    "executable": "runs", "destination": "contacts", "listen": "listens on port",
}  # fmt: skip
_ATTACK: Final[dict[Kind, str]] = {"executable": "T1059", "destination": "T1071", "listen": "T1571"}


class Drift(Observer):
    """The detector.

    Args:
        exclusions: What is known and wanted.
        severity: The highest it gives.
        ephemeral_ports: From which port on listening is no behaviour.
        baseline: What workloads did before; None: nothing is known of any.
    """

    settings: ClassVar[tuple[str, ...]] = (*Observer.settings, "_ephemeral")

    def __init__(
        self,
        exclusions: Sequence[Exclusion] = (),
        severity: Severity | None = None,
        *,
        ephemeral_ports: int = EPHEMERAL_PORTS,
        baseline: Baseline | None = None,
    ) -> None:
        super().__init__(RULE, exclusions, severity)
        self._ephemeral = ephemeral_ports
        self._baseline = baseline
        self._until: Bounded[tuple[str, Kind, str, int], int] = Bounded(MAX_KEPT, int)

    def firsts(self) -> Mapping[str, Handler]:
        """See :class:`Observer`."""
        return {CONNECT: self._contact, DATAGRAM: self._contact} if self._baseline else {}

    def handlers(self) -> Mapping[str, Handler]:
        """See :class:`Observer`."""
        if self._baseline is None:
            return {}
        return {EXEC: self._executed, LISTEN: self._listen, REFUSAL: self._refusal}

    def metrics(self) -> Mapping[str, int]:
        """See :class:`Observer`."""
        return {"evicted": self._until.evicted, "kept_now": len(self._until)}

    def _contact(self, frame: Frame, index: int, event: Mapping[str, Any]) -> Sighting | None:
        address, port = event["remote_address"], event["remote_port"]
        if not index or frame.scene.stays_inside(index, address):
            return None
        return self._judge(frame, index, event, "destination", (address, port))

    def _refusal(self, frame: Frame, index: int, event: Mapping[str, Any]) -> Sighting | None:
        if event["hook"] not in ("CONNECT", "SENDMSG") or event["reason"].startswith("QUARANTINED"):
            return None
        return self._contact(frame, index, event)

    def _executed(self, frame: Frame, index: int, event: Mapping[str, Any]) -> Sighting | None:
        path: str = frame.scene.view.processes[index]["executable"]
        return self._judge(frame, index, event, "executable", (path, 0)) if path else None

    def _listen(self, frame: Frame, index: int, event: Mapping[str, Any]) -> Sighting | None:
        port: int = event["local_port"]
        if not port or port >= self._ephemeral:
            return None
        return self._judge(frame, index, event, "listen", ("", port))

    def _judge(
        self, frame: Frame, index: int, event: Mapping[str, Any], kind: Kind, what: tuple[str, int]
    ) -> Sighting | None:
        workload = frame.workload_ids[index]
        now_ns = event["ktime_ns"] + frame.offset_ns
        key = workload, kind, *what
        if self._baseline is None or (self._until.peek(key) or 0) > now_ns:
            return None
        text, port = what
        value = {
            "executable": lambda: text,
            "destination": lambda: destination_value(frame, index, event),
            "listen": lambda: str(port),
        }[kind]()
        if self._baseline.known(workload, kind, value) is not False:
            self._until.put(key, now_ns + _ASKED_NS)
            return None
        self._until.put(key, now_ns + _TOLD_NS)
        return self._sighting(frame, index, event, kind, value)

    def _sighting(
        self, frame: Frame, index: int, event: Mapping[str, Any], kind: Kind, value: str
    ) -> Sighting:
        level, _ = character(frame, index)
        what = f"{_VERBS[kind]} {shown(value)}"
        destination = None
        if kind == "destination":
            destination = Destination(event["remote_address"], event["remote_port"], event["protocol"])
        return Sighting(
            self.capped("HIGH" if level >= DROPPED else "MEDIUM"),
            f"{what}: never while learned",
            f"{what}, which its workload never did while it was learned",
            destination,
            attack=(_ATTACK[kind],),
            weight=level,
        )
