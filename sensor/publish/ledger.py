# SPDX-License-Identifier: Apache-2.0
"""The account of every event the kernel tried to report: read, or lost and counted.

Input: the per-CPU sequence number of each record on the ring, which counts failed attempts too. Output: the
schema's CpuLedger entries, from which a reader proves ``(last_seq - first_seq + 1) - events = lost``, and the
loss counters. The drain loop writes ``last`` and ``events`` directly, one list access each.

The kernel numbers from 0, the schema from 1, so that ``last_seq`` is the number of attempts so far.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sensor.publish.layout import RECORD, RING_DISCARDED, RING_HEADER_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sensor.publish.losses import Losses


class Ledger:
    """Per-CPU counts of the batch being filled.

    Args:
        cpus: Possible CPUs: the length of the kernel's per-CPU arrays.
        fresh: True when the sequence began with this sensor; an adopted ring begins anywhere, and the
            first number read of a CPU is then where the account begins. (What was lost before it shows as
            a gap to the last batch of the sensor before.)
    """

    def __init__(self, cpus: int, *, fresh: bool) -> None:
        self.last = [-1] * cpus
        self.events = [0] * cpus
        self._first: list[int | None] = [0 if fresh else None] * cpus
        self._unknown = 0 if fresh else cpus

    def learn(self, data: bytes) -> None:
        """Take the lowest number of each CPU not known yet from a chunk that is about to be decoded.

        Not simply the first one: an interrupt between taking a number and reserving its place puts two
        records of a CPU in the other order.
        """
        if not self._unknown:
            return
        lowest: dict[int, int] = {}
        offset = 0
        while offset + RECORD.size <= len(data):
            length, seq, _, cpu = RECORD.unpack_from(data, offset)
            if not length & RING_DISCARDED and cpu < len(self._first) and self._first[cpu] is None:
                lowest[cpu] = min(seq, lowest.get(cpu, seq))
            offset += RING_HEADER_BYTES + ((length & ~RING_DISCARDED) + 7 & ~7)
        for cpu, seq in lowest.items():
            self._first[cpu] = seq
            self._unknown -= 1

    def take(self) -> list[dict[str, int]]:
        """The entries of a batch that closes; CPUs without an event are left out."""
        entries = []
        for cpu, events in enumerate(self.events):
            if not events:
                continue
            last = self.last[cpu]
            first = self._first[cpu]
            entries.append({
                "cpu": cpu,
                "first_seq": (first if first is not None else last - events + 1) + 1,
                "last_seq": last + 1,
                "events": events,
            })  # fmt: skip
            self._first[cpu] = last + 1
            self.events[cpu] = 0
        return entries


def loss_entries(sources: Mapping[str, Mapping[str, int]], losses: Losses) -> list[dict[str, Any]]:
    """The schema's LossCounter entries of everything above zero.

    Args:
        sources: Stage to counters kept elsewhere (the kernel's, the tables').
        losses: The counters of this package.
    """
    entries = [
        {"stage": stage, "reason": reason, "count": count}
        for stage, counters in (*sources.items(), *losses.by_stage().items())
        for reason, count in counters.items()
        if count
    ]
    entries.sort(key=lambda entry: (entry["stage"], entry["reason"]))
    return entries
