# SPDX-License-Identifier: Apache-2.0
"""The drain loop's inside: bytes of the ring to events of a batch.

Input: a chunk of committed ring records. Output: events in the batch builder, in kernel order, and the
per-CPU account. It stops where a batch is full, so that the caller closes it and comes back.

It never raises and never logs: a record that cannot be read is counted and stepped over, and its sequence
number shows in the account as lost.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from sensor.publish import layout
from sensor.publish.batch import MAX_WEIGHT
from sensor.publish.claims import ClaimEvents
from sensor.publish.flows import FlowEvents, is_listening
from sensor.publish.images import read_image
from sensor.publish.layout import HEADER, RECORD, RING_DISCARDED, RING_HEADER_BYTES
from sensor.publish.lifecycle import LifecycleEvents
from sensor.publish.payloads import PayloadEvents
from sensor.publish.questions import DnsEvents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sensor.publish.addresses import AddressText
    from sensor.publish.batch import BatchBuilder
    from sensor.publish.ledger import Ledger
    from sensor.publish.lineage import Key, ProcessTable
    from sensor.publish.losses import Losses

_OWNER: Final = layout.reader(HEADER, "start_ns", "tgid", "type")
_MIN_RECORD_BYTES: Final = RING_HEADER_BYTES + HEADER.size_bytes
# What a handler can meet in bytes that do not fit the layout; anything else is a bug and ends the sensor,
# whose successor reads the same bytes again.
_WRONG_BYTES: Final = (struct.error, IndexError, ValueError, OverflowError)


class Decoder:
    """Decodes chunk after chunk into one batch builder.

    Args:
        batch: Where events go.
        ledger: The per-CPU account.
        losses: Counters.
    """

    def __init__(self, batch: BatchBuilder, ledger: Ledger, losses: Losses) -> None:
        self._batch = batch
        self._ledger = ledger
        self._losses = losses
        self._handlers: list[Callable[[bytes, int, int], None]] = [self._unknown_type] * 256
        for events in (
            FlowEvents(batch), LifecycleEvents(batch), DnsEvents(batch), ClaimEvents(batch),
            PayloadEvents(batch),
        ):  # fmt: skip
            for kind, handler in events.handlers().items():
                self._handlers[kind] = handler

    def feed(self, data: bytes, offset: int, position: int, limit: int) -> int:
        """Decode from an offset on until the chunk ends or the batch is full.

        Args:
            data: Ring bytes.
            offset: Where to begin, a record's header.
            position: Ring position of ``data[0]``.
            limit: Events the batch may hold.

        Returns:
            Offset behind the last record taken.
        """
        end = len(data)
        batch = self._batch
        events = batch.events
        handlers = self._handlers
        unpack = RECORD.unpack_from
        last = self._ledger.last
        counts = self._ledger.events
        while offset < end and len(events) < limit and batch.weight < MAX_WEIGHT:
            length, seq, kind, cpu = unpack(data, offset)
            if length < RING_DISCARDED:
                try:
                    handlers[kind](data, offset, position + offset)
                    counts[cpu] += 1
                except _WRONG_BYTES:
                    self._wrong(kind)
                if seq > last[cpu]:  # noqa: PLR1730 - max() would be a call per event
                    last[cpu] = seq
                offset += RING_HEADER_BYTES + (length + 7 & ~7)
            else:
                offset += RING_HEADER_BYTES + ((length & ~RING_DISCARDED) + 7 & ~7)
        return offset

    def _unknown_type(self, _data: bytes, _offset: int, _position: int) -> None:
        raise ValueError("no such event type")

    def _wrong(self, kind: int) -> None:
        if kind < len(self._handlers) and self._handlers[kind] != self._unknown_type:
            self._losses.decode__malformed += 1
        else:
            self._losses.decode__unknown_type += 1


def records(data: bytes) -> Iterator[tuple[int, Key, int]]:
    """Offset, process and type of each record: for a look ahead, not for the path."""
    offset = 0
    while offset + _MIN_RECORD_BYTES <= len(data):
        length = RECORD.unpack_from(data, offset)[0]
        if not length & RING_DISCARDED:
            start_ns, tgid, kind = _OWNER.unpack_from(data, offset)
            yield offset, (tgid, start_ns), kind
        offset += RING_HEADER_BYTES + ((length & ~RING_DISCARDED) + 7 & ~7)


def look_ahead(chunks: list[bytes], processes: ProcessTable, addresses: AddressText) -> int:
    """Enter the start-up inventory before the events that were on the ring already.

    A sensor that takes over reads first what its predecessor did not get acknowledged; who did those things
    is told only by the inventory behind them. A process that forks or execs within these chunks is left
    out: its state at the end is not what it was at the beginning, and its own events say what it became.

    Returns:
        How many processes were entered.
    """
    changed = {
        key
        for data in chunks
        for _, key, kind in records(data)
        if kind in (layout.FORK, layout.EXEC)
    }  # fmt: skip
    entered = 0
    for data in chunks:
        for offset, key, kind in records(data):
            if kind == layout.PROCESS_INVENTORY and key not in changed:
                record, parent, cgroup_id = read_image(data, offset, addresses, seen_exec=False)
                processes.inventory(record, parent, cgroup_id)
                entered += 1
            elif kind == layout.SOCKET_INVENTORY and is_listening(data, offset):
                image = processes.find(*key)
                if image is not None:
                    image.serving = True
    return entered
