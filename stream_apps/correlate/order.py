# SPDX-License-Identifier: Apache-2.0
"""Each event once, and every hole noticed: batches of a node against ring positions.

Input: batches in topic order. Output: :class:`Admission`, the events not seen before. A batch may come again
(at-least-once delivery), and after a sensor's crash events may come again in other batches: what lies below
the highest position read is dropped. A batch that doesn't begin where the last one ended leaves a gap.

Notices of the sensor are not on the ring, and share the position of the event after them: they are told
apart by their time. A ``STARTED`` notice newer than all before means a fresh ring, where positions begin
anew on the same boot; so does batch number 1 of a later time than any.

Failure: bounded in nodes; a node forgotten (counted) is met as new.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

# Nodes of the partitions one process reads: a 5,000 node cluster in one process. Some 400 bytes each.
MAX_NODES: Final = 8192

NOTICE: Final = "nsp.SensorNotice"
Event = tuple[str, dict[str, Any]]


@dataclass(slots=True)
class _Node:
    boot_id: str
    position: int
    clock_boot_ns: int = -1
    notice_ns: int = -1


@dataclass(frozen=True, slots=True)
class Admission:
    """What of a batch is new.

    Attributes:
        events: Events not seen before, in order.
        notices: How many of these are notices of the sensor, which no CPU numbered.
        duplicates: Events dropped.
        gap_bytes: Ring bytes missing before this batch; 0 for none, and for the first batch of a node.
        new_ring: First batch of this node, boot or ring that is known here.
    """

    events: list[Event]
    notices: int
    duplicates: int
    gap_bytes: int
    new_ring: bool


class Ordering:
    """Admits batches.

    Attributes:
        evicted: Nodes forgotten because of the bound.
    """

    def __init__(self, max_nodes: int = MAX_NODES) -> None:
        self.evicted = 0
        self._max_nodes = max_nodes
        self._nodes: OrderedDict[str, _Node] = OrderedDict()

    def admit(self, batch: dict[str, Any]) -> Admission:
        """Take a batch; what it returns is new, and old from now on."""
        events: list[Event] = batch["events"]
        notices = [event for name, event in events if name == NOTICE]
        node, new_ring = self._node(batch, notices)
        start, end = batch["ring_start"], batch["ring_end"]
        gap = 0 if new_ring else max(0, start - node.position)
        fresh = events
        if start < node.position or (notices and min(each["ktime_ns"] for each in notices) <= node.notice_ns):
            fresh = [each for each in events if _is_new(each, node)]
        fresh_notices = sum(name == NOTICE for name, _ in fresh) if notices else 0
        node.position = max(node.position, end)
        node.clock_boot_ns = max(node.clock_boot_ns, batch["clock"]["boot_ns"])
        if notices:
            node.notice_ns = max(node.notice_ns, *(each["ktime_ns"] for each in notices))
        return Admission(fresh, fresh_notices, len(events) - len(fresh), gap, new_ring)

    def _node(self, batch: dict[str, Any], notices: list[dict[str, Any]]) -> tuple[_Node, bool]:
        name = batch["node"]
        node = self._nodes.get(name)
        if node is not None and node.boot_id == batch["boot_id"]:
            self._nodes.move_to_end(name)
            if _is_fresh_ring(batch, notices, node):
                node.position = batch["ring_start"]
                return node, True
            return node, False
        node = self._nodes[name] = _Node(batch["boot_id"], batch["ring_start"])
        self._nodes.move_to_end(name)
        if len(self._nodes) > self._max_nodes:
            self._nodes.popitem(last=False)
            self.evicted += 1
        return node, True


def all_again(batch: dict[str, Any]) -> Admission:
    """All of a batch that is looked at once more, out of order: nobody's position moves."""
    events: list[Event] = batch["events"]
    notices = sum(name == NOTICE for name, _ in events)
    return Admission(events, notices, duplicates=0, gap_bytes=0, new_ring=False)


def _is_new(event: Event, node: _Node) -> bool:
    name, fields = event
    if name == NOTICE:
        newer: bool = fields["ktime_ns"] > node.notice_ns
        return newer
    beyond: bool = fields["position"] >= node.position
    return beyond


def _is_fresh_ring(batch: dict[str, Any], notices: list[dict[str, Any]], node: _Node) -> bool:
    if any(each["kind"] == "STARTED" and each["ktime_ns"] > node.notice_ns for each in notices):
        return True
    # The notice was lost with a sensor that died before its first batch. Taking positions as old would drop
    # everything from now on; taking a re-read batch as new costs duplicates, whose alerts have known ids.
    first: bool = batch["sequence"] == 1 and batch["ring_start"] < node.position
    later: bool = batch["clock"]["boot_ns"] > node.clock_boot_ns
    return first and later
