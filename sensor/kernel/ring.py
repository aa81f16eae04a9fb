# SPDX-License-Identifier: Apache-2.0
"""The consumer's end of the BPF ring buffer, by mmap: bytes out, in bulk, without a callback per event.

Layout (kernel/bpf/ringbuf.c): page 0 holds the consumer position (ours to write), page 1 the producer
position, then the data pages twice, so that a record that wraps is still contiguous. A record is a header
of two u32 (length with flag bits, page offset), its bytes, and padding to 8. Positions only grow.

Reading and releasing are apart: what was read stays in the ring until the broker has it, so a sensor that
is killed reads it again. A ring that fills up meanwhile makes the kernel count losses, not overwrite.
"""

from __future__ import annotations

import mmap
import select
import threading
from dataclasses import dataclass
from typing import Final

HEADER_BYTES: Final = 8
BUSY_BIT: Final = 1 << 31  # reserved, not yet written
DISCARD_BIT: Final = 1 << 30  # given up by the program: to be skipped
LENGTH_MASK: Final = DISCARD_BIT - 1

_PAGE: Final = mmap.PAGESIZE
_ALIGN: Final = 7


def validate_ring_bytes(ring_bytes: int) -> int:
    """The size, if the kernel takes it: a power of two, and whole pages.

    Raises:
        ValueError: It is not.
    """
    if ring_bytes < _PAGE or ring_bytes & (ring_bytes - 1):
        raise ValueError(f"ring_bytes must be a power of two and at least {_PAGE}, not {ring_bytes}")
    return ring_bytes


@dataclass(frozen=True, slots=True)
class RingChunk:
    """A copy of whole ring records, discarded ones included.

    Args:
        data: Headers, events and padding, as they lie in the ring.
        start: Ring position of the first byte.
        end: Ring position after the last: ``start + len(data)``.
    """

    data: bytes
    start: int
    end: int


class EventRing:
    """One mapped ring; for one reader.

    Reading begins at the consumer position, which is where the last sensor's acknowledged batches ended.

    Args:
        map_fd: The ring buffer map; the mapping outlives the descriptor, wait() does not.
        size_bytes: Its max_entries.
    """

    def __init__(self, map_fd: int, size_bytes: int) -> None:
        self.size_bytes = validate_ring_bytes(size_bytes)
        self._consumer_map = mmap.mmap(map_fd, _PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        length = _PAGE + 2 * size_bytes
        self._data_map = mmap.mmap(map_fd, length, mmap.MAP_SHARED, mmap.PROT_READ, offset=_PAGE)
        # Casts, because struct's standard sizes are written byte by byte: the kernel would see halves.
        self._consumer = memoryview(self._consumer_map).cast("Q")
        self._producer = memoryview(self._data_map)[:_PAGE].cast("Q")
        self._data = memoryview(self._data_map)[_PAGE:]
        self._words = self._data.cast("I")
        self._map_fd = map_fd
        self._wakeups: select.epoll | None = None
        self._barrier_lock = threading.Lock()
        self._barrier_lock.acquire()
        self._position: int = self._consumer[0]

    @property
    def position(self) -> int:
        """Where the next read begins."""
        return self._position

    @property
    def unread_bytes(self) -> int:
        """Produced and not yet read, records still being written included."""
        return self._producer[0] - self._position

    @property
    def held_bytes(self) -> int:
        """Read and not yet released: what a new sensor would read again."""
        return self._position - self._consumer[0]

    def read(self, limit_bytes: int) -> RingChunk | None:
        """Copy the finished records that come next, or None when there is none.

        Stops at a record that is still being written, and before the record that would exceed the
        limit; a first record larger than the limit is copied alone.
        """
        produced = self._producer[0]
        self._barrier()
        start, words, mask = self._position, self._words, self.size_bytes - 1
        at, stop = start, min(produced, start + limit_bytes)
        while at < produced:
            length = words[(at & mask) >> 2]
            if length & BUSY_BIT:
                break
            following = at + ((length & LENGTH_MASK) + HEADER_BYTES + _ALIGN & ~_ALIGN)
            if following > stop and at > start:
                break
            at = following
        if at == start:
            return None
        self._barrier()
        offset = start & mask
        chunk = RingChunk(bytes(self._data[offset : offset + at - start]), start, at)
        self._position = at
        return chunk

    def release(self, position: int) -> None:
        """Give the ring's bytes before a position back to the kernel.

        Raises:
            ValueError: A position that was not read yet. One already released changes nothing.
        """
        if position > self._position:
            raise ValueError(f"position {position} was not read yet: reading is at {self._position}")
        self._consumer[0] = max(self._consumer[0], position)

    def wait(self, timeout_s: float) -> bool:
        """Sleep until the kernel wakes readers, which it does for an exec only, or for so long.

        Returns:
            Whether it was woken, now or since the last call.
        """
        if self._wakeups is None:
            self._wakeups = select.epoll(1)
            # Edge-triggered: what was read and is not released yet counts as readable for the kernel.
            self._wakeups.register(self._map_fd, select.EPOLLIN | select.EPOLLET)
        return bool(self._wakeups.poll(timeout_s, 1))

    def close(self) -> None:
        """Unmap; what is in the ring stays there."""
        if self._wakeups is not None:
            self._wakeups.close()
        for view in (self._words, self._data, self._producer, self._consumer):
            view.release()
        self._data_map.close()
        self._consumer_map.close()

    def _barrier(self) -> None:
        """Keep earlier loads before later ones, which arm64 would not: a release and an acquire."""
        self._barrier_lock.release()
        self._barrier_lock.acquire()
