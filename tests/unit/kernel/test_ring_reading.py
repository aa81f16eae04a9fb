# SPDX-License-Identifier: Apache-2.0
"""Reading the ring, on memory laid out as the kernel lays it out, with records the kernel makes rarely."""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensor.kernel.ring import BUSY_BIT, DISCARD_BIT, HEADER_BYTES, EventRing, validate_ring_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 4 * mmap.PAGESIZE


class FakeRing:
    """A ring in anonymous memory whose producer is the test; data pages are written twice."""

    def __init__(self, start: int = 0) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * mmap.PAGESIZE + 2 * SIZE)
        self.produced = start
        self._write_position(0, start)
        self._write_position(mmap.PAGESIZE, start)

    def _write_position(self, at: int, position: int) -> None:
        os.pwrite(self.fd, struct.pack("<Q", position), at)

    @property
    def consumed(self) -> int:
        (position,) = struct.unpack("<Q", os.pread(self.fd, 8, 0))
        return int(position)

    def append(self, payload: bytes, flags: int = 0) -> bytes:
        record = struct.pack("<II", len(payload) | flags, 0) + payload
        record += bytes(-len(record) % 8)
        for number, byte in enumerate(record):
            at = 2 * mmap.PAGESIZE + (self.produced + number) % SIZE
            os.pwrite(self.fd, bytes([byte]), at)
            os.pwrite(self.fd, bytes([byte]), at + SIZE)
        self.produced += len(record)
        self._write_position(mmap.PAGESIZE, self.produced)
        return record


@contextlib.contextmanager
def opened(fake: FakeRing) -> Iterator[EventRing]:
    ring = EventRing(fake.fd, SIZE)
    try:
        yield ring
    finally:
        ring.close()
        os.close(fake.fd)


def test_an_empty_ring_gives_nothing() -> None:
    with opened(FakeRing(4096)) as ring:
        assert ring.read(1 << 20) is None
        assert ring.unread_bytes == ring.held_bytes == 0


def test_reading_stops_at_a_record_that_is_still_being_written() -> None:
    fake = FakeRing()
    finished = fake.append(b"finished")
    fake.append(b"not yet!", BUSY_BIT)
    fake.append(b"after it")
    with opened(fake) as ring:
        chunk = ring.read(1 << 20)
        assert chunk is not None
        assert chunk.data == finished
        assert ring.read(1 << 20) is None
        assert ring.unread_bytes == 2 * len(finished)


def test_a_discarded_record_stays_in_the_copy_so_that_positions_hold() -> None:
    fake = FakeRing()
    records = fake.append(b"given up", DISCARD_BIT) + fake.append(b"good")
    with opened(fake) as ring:
        chunk = ring.read(1 << 20)
        assert chunk is not None
        assert chunk.data == records
        assert chunk.end == len(records)


def test_a_record_across_the_end_of_the_ring_is_whole() -> None:
    fake = FakeRing(SIZE - 16)
    record = fake.append(bytes(range(100)))
    with opened(fake) as ring:
        chunk = ring.read(1 << 20)
        assert chunk is not None
        assert chunk.data == record
        assert (chunk.start, chunk.end) == (SIZE - 16, SIZE - 16 + len(record))


def test_a_first_record_beyond_the_limit_is_read_alone() -> None:
    fake = FakeRing()
    large = fake.append(bytes(1000))
    fake.append(b"next")
    with opened(fake) as ring:
        chunk = ring.read(100)
        assert chunk is not None
        assert chunk.data == large


@given(
    start=st.integers(0, 10 * SIZE // 8).map(lambda number: number * 8),
    payloads=st.lists(st.binary(max_size=300), max_size=20),
    limit=st.integers(1, 2000),
)
def test_chunks_are_the_records_in_order_whatever_the_limit(
    start: int, payloads: list[bytes], limit: int
) -> None:
    fake = FakeRing(start)
    records = [fake.append(payload) for payload in payloads]
    with opened(fake) as ring:
        position, data = start, b""
        while chunk := ring.read(limit):
            assert chunk.start == position
            assert len(chunk.data) <= max(limit, *(len(record) for record in records))
            position, data = chunk.end, data + chunk.data
        assert data == b"".join(records)
        assert ring.held_bytes == len(data)
        ring.release(position)
        assert fake.consumed == fake.produced


def test_release_goes_forward_only_and_not_beyond_what_was_read() -> None:
    fake = FakeRing()
    first = len(fake.append(b"one"))
    fake.append(b"two")
    with opened(fake) as ring:
        ring.read(HEADER_BYTES + 8)
        with pytest.raises(ValueError, match="not read yet"):
            ring.release(first + 8)
        ring.release(first)
        ring.release(0)
        assert fake.consumed == first


@pytest.mark.parametrize("size", [0, 1, 100, 3 * mmap.PAGESIZE, (8 << 20) + 1])
def test_a_size_the_kernel_would_refuse_is_refused_with_the_rule(size: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        validate_ring_bytes(size)
