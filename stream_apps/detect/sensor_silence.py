# SPDX-License-Identifier: Apache-2.0
"""``nsp.sensor-silence``: a node of which we hear nothing, or not all.

Input: batches, and the time that passes between them. Output: findings, when

- a node sends nothing for a while, while others go on all that time. Counted is our own time, so that no
  node's clock makes one, and only since when batches come steadily: after a pause of all (the broker, we
  ourselves) everybody has his while anew;
- the sensor's counters say that events were lost, more than a few and more than a share, within a minute;
- batches are missing between two that were read.

Nobody stops a sensor by accident unseen; who wants to work unseen floods it or stops it. A node is forgotten
when it was told, when another process takes over its partition, and when there are too many (counted).
Silence is told only live: in a replay no time passes but that of the batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from stream_apps.correlate.ledger import EVENT_LOSSES
from stream_apps.correlate.order import MAX_NODES
from stream_apps.detect.bounded import Bounded
from stream_apps.detect.node_finding import NodeFinding
from stream_apps.detect.rule import RANK, Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from stream_apps.correlate.order import Admission
    from stream_apps.detect.rule import Severity

RULE: Final = Rule(
    id="nsp.sensor-silence",
    title="A node is not, or not fully, seen",
    severity="HIGH",
    attack=("T1562.001", "T1562.006"),
)

_NS_PER_S: Final = 1_000_000_000
# Nobody heard for so long is a pause of all.
_PAUSE_NS: Final = 60 * _NS_PER_S
_WINDOW_NS: Final = 60 * _NS_PER_S


@dataclass(frozen=True, slots=True)
class SilenceLimits:
    """When a node is too quiet.

    Attributes:
        silent_s: Nothing from a node for so long. Sensors test themselves every few minutes, so no node is.
        lost_events: Events lost within a minute; a full ring on a burst loses some hundred.
        lost_share: And of all events of that minute.
        repeat_s: One alert of losses of a node within so long.
    """

    silent_s: int = 600
    lost_events: int = 1000
    lost_share: float = 0.01
    repeat_s: int = 600


class _Node:
    """What is known of a node."""

    __slots__ = (
        "arrived_ns", "boot_id", "boot_ns", "counters", "lost", "position", "seen", "since_ns",
        "told_until_ns", "wall_ns", "workload",
    )  # fmt: skip

    def __init__(self) -> None:
        self.boot_id = ""
        self.workload: Mapping[str, Any] = {}
        self.position = 0
        self.wall_ns = self.boot_ns = self.arrived_ns = 0
        self.counters: dict[tuple[str, str], int] | None = None
        self.since_ns = self.lost = self.seen = 0
        self.told_until_ns = 0


class SensorSilence:
    """Watches the nodes.

    Args:
        limits: When a node is too quiet.
        severity: The highest it gives.
        pods_on: How many pods are known on a node: one that nobody knows was taken away.
    """

    def __init__(
        self, limits: SilenceLimits, severity: Severity | None, pods_on: Callable[[str], int]
    ) -> None:
        self._limits = limits
        self._highest = severity or RULE.severity
        self._pods_on = pods_on
        self._nodes: Bounded[str, _Node] = Bounded(MAX_NODES, _Node)
        self._heard_ns = 0
        self._steady_ns = 0

    def retune(self, wanted: SensorSilence) -> None:
        """Go over to the limits of another; what is known of the nodes stays."""
        self._limits, self._highest = wanted._limits, wanted._highest

    def metrics(self) -> Mapping[tuple[str, str], int]:
        """Figures."""
        return {
            ("detect", "sensor_silence_evicted"): self._nodes.evicted,
            ("detect", "sensor_silence_nodes_now"): len(self._nodes),
        }

    def takes(self, is_ours: Callable[[str], bool]) -> None:
        """Forget the nodes that another process hears from now on."""
        for name in [each for each, _ in self._nodes.items() if not is_ours(each)]:
            self._nodes.drop(name)

    def batch(self, batch: Mapping[str, Any], admission: Admission, now_ns: int) -> Iterator[NodeFinding]:
        """Take a batch that was read at ``now_ns``."""
        name: str = batch["node"]
        node = self._nodes.at(name)
        fresh = admission.new_ring or node.boot_id != batch["boot_id"]
        node.boot_id = batch["boot_id"]
        node.workload = batch["workloads"][0]
        node.position = max(batch["ring_end"], 0 if fresh else node.position)
        node.wall_ns, node.boot_ns = batch["clock"]["wall_ns"], batch["clock"]["boot_ns"]
        node.arrived_ns = now_ns
        if now_ns - self._heard_ns > _PAUSE_NS:
            self._steady_ns = now_ns
        self._heard_ns = now_ns
        # An old batch that comes again brings old counters.
        lost = 0 if admission.duplicates else _growth(node, batch["losses"], fresh=fresh)
        yield from self._losses(name, node, lost, len(admission.events))
        # Of a node that was another process's meanwhile, what lies between is that one's.
        if admission.gap_bytes and not fresh:
            says = f"sent batches of which {admission.gap_bytes} bytes of events never arrived"
            yield self._quiet(name, node, "MEDIUM", says, "gap")

    def tick(self, now_ns: int) -> Iterator[NodeFinding]:
        """Let time pass: who has not been heard for too long, while others were."""
        if now_ns - self._heard_ns > _PAUSE_NS:
            return
        silent_ns = self._limits.silent_s * _NS_PER_S
        late = [
            (name, node)
            for name, node in self._nodes.items()
            if now_ns - max(node.arrived_ns, self._steady_ns) >= silent_ns
        ]
        for name, node in late:
            self._nodes.drop(name)
            silent_s = (now_ns - node.arrived_ns) // _NS_PER_S
            pods = self._pods_on(name)
            known = f"{pods} pods are known there" if pods else "no pod is known there: it may be gone"
            says = f"has sent nothing for {silent_s} s while others went on; {known}"
            yield self._quiet(name, node, "HIGH" if pods else "LOW", says, "silence")

    def _losses(self, name: str, node: _Node, lost: int, seen: int) -> Iterator[NodeFinding]:
        limits = self._limits
        if not 0 <= node.wall_ns - node.since_ns < _WINDOW_NS:
            node.since_ns, node.lost, node.seen = node.wall_ns, 0, 0
        node.lost += lost
        node.seen += seen
        if node.lost < limits.lost_events or node.lost < limits.lost_share * (node.lost + node.seen):
            return
        if node.wall_ns < node.told_until_ns:
            return
        node.told_until_ns = node.wall_ns + limits.repeat_s * _NS_PER_S
        share = 100 * node.lost / (node.lost + node.seen)
        says = f"lost {node.lost} events within a minute, {share:.0f} % of what there was to see"
        yield self._quiet(name, node, "MEDIUM", says, "loss")

    def _quiet(self, name: str, node: _Node, severity: Severity, says: str, kind: str) -> NodeFinding:
        return NodeFinding(
            rule=RULE,
            node=name,
            boot_id=node.boot_id,
            workload=node.workload,
            severity=min(severity, self._highest, key=RANK.__getitem__),
            position=node.position,
            wall_ns=node.wall_ns,
            boot_ns=node.boot_ns,
            says=says,
            kind=kind,
        )


def _growth(node: _Node, losses: list[Mapping[str, Any]], *, fresh: bool) -> int:
    """Events lost since the batch before, by counters that begin anew with a sensor; the first are a base."""
    before = None if fresh else node.counters
    counters = {
        (each["stage"], each["reason"]): each["count"]
        for each in losses
        if (each["stage"], each["reason"]) in EVENT_LOSSES
    }
    node.counters = counters
    if before is None:
        return 0
    return sum(
        count - before.get(key, 0) if count >= before.get(key, 0) else count
        for key, count in counters.items()
    )
