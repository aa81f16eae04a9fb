# SPDX-License-Identifier: Apache-2.0
"""The ring as the kernel fills it: every attempt is read or counted, and what is not released comes again."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import defaultdict
from typing import TYPE_CHECKING

from sensor.kernel import Kernel, KernelOptions
from sensor.kernel.ring import EventRing
from tests.support.kernel_lab import Cgroup, RawEvent, events_of

if TYPE_CHECKING:
    from collections.abc import Iterable

TINY_RING_BYTES = 64 * 1024
BATCH_BYTES = 16 * 1024


def drain(ring: EventRing, limit_bytes: int = BATCH_BYTES) -> list[RawEvent]:
    """Read and release all there is."""
    events: list[RawEvent] = []
    while chunk := ring.read(limit_bytes):
        events += events_of(chunk)
        ring.release(chunk.end)
    return events


def by_cpu(events: Iterable[RawEvent]) -> dict[int, list[int]]:
    """Sequence numbers as they lie in the ring, by CPU."""
    numbers: dict[int, list[int]] = defaultdict(list)
    for event in events:
        numbers[event.cpu].append(event.seq)
    return numbers


def produce(cgroup: Cgroup, processes: int) -> None:
    """Fork, exec and exit so many times."""
    cgroup.run("sh", "-c", f"for i in $(seq {processes}); do /bin/true; done")


def test_nothing_is_missing_when_the_reader_keeps_up_over_many_turns_of_the_ring(
    options: KernelOptions, cgroup: Cgroup
) -> None:
    tiny = dataclasses.replace(options, ring_bytes=TINY_RING_BYTES)
    with contextlib.closing(Kernel.start(tiny)) as kernel:
        events = []
        while kernel.ring.position < 5 * TINY_RING_BYTES:
            produce(cgroup, 20)
            events += drain(kernel.ring)
        attempted = kernel.sequences()
        events += drain(kernel.ring)
        assert kernel.counters()["ring_full"] == 0
    for cpu, numbers in by_cpu(events).items():
        assert sorted(numbers) == list(range(len(numbers)))
        assert len(numbers) >= attempted[cpu]


def test_a_full_ring_counts_what_it_loses_and_seen_plus_lost_is_attempted(
    options: KernelOptions, cgroup: Cgroup
) -> None:
    tiny = dataclasses.replace(options, ring_bytes=TINY_RING_BYTES)
    with contextlib.closing(Kernel.start(tiny)) as kernel:
        while kernel.counters()["ring_full"] == 0:
            produce(cgroup, 100)
        oldest = kernel.ring.read(TINY_RING_BYTES)
        assert oldest is not None
        assert oldest.start == 0, "a full ring keeps the oldest events"
        seen, lost, attempted = _settled(kernel, list(events_of(oldest)))
    assert len(seen) + lost == attempted


def _settled(kernel: Kernel, seen: list[RawEvent]) -> tuple[list[RawEvent], int, int]:
    """Counters and events of one moment: read until no event came between the looks."""
    kernel.ring.release(kernel.ring.position)
    while True:
        seen += drain(kernel.ring)
        attempted, lost = sum(kernel.sequences()), kernel.counters()
        more = drain(kernel.ring)
        seen += more
        if not more and attempted == sum(kernel.sequences()):
            return seen, lost["ring_full"] + lost["scratch_missing"], attempted


def test_a_read_stops_at_its_limit_on_a_record_and_goes_on_from_there(kernel: Kernel, cgroup: Cgroup) -> None:
    produce(cgroup, 30)
    first = kernel.ring.read(2000)
    second = kernel.ring.read(1 << 20)
    assert first is not None
    assert second is not None
    assert len(first.data) <= 2000
    assert first.end == first.start + len(first.data) == second.start
    assert [event.size for event in events_of(first)] == [len(event.data) for event in events_of(first)]
    assert kernel.ring.held_bytes == second.end


def test_what_was_not_released_is_read_again_by_the_next_reader(
    kernel: Kernel, options: KernelOptions, cgroup: Cgroup
) -> None:
    produce(cgroup, 10)
    first = kernel.ring.read(2000)
    second = kernel.ring.read(2000)
    assert first is not None
    assert second is not None
    kernel.ring.release(first.end)
    again = EventRing(kernel._maps["events"], options.ring_bytes)
    assert again.position == first.end
    assert again.read(2000) == second
    again.close()
