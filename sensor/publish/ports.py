# SPDX-License-Identifier: Apache-2.0
"""What publishing needs of the kernel side, and no more; sensor.kernel.runtime.Kernel is the real one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sensor.kernel.ring import RingChunk
    from sensor.kernel.state import ProcessValue, SensorState


class Ring(Protocol):
    """The event ring's consumer end."""

    @property
    def position(self) -> int:
        """Where the next read begins."""

    @property
    def unread_bytes(self) -> int:
        """Produced and not read."""

    @property
    def held_bytes(self) -> int:
        """Read and not released."""

    @property
    def size_bytes(self) -> int:
        """Of the ring."""

    def read(self, limit_bytes: int) -> RingChunk | None:
        """A copy of the next whole records."""

    def wait(self, timeout_s: float) -> bool:
        """Sleep until an exec, or for so long; whether it was one."""

    def release(self, position: int) -> None:
        """Give bytes back to the kernel."""


class State(Protocol):
    """The pinned maps that publishing uses."""

    def sensor_state(self) -> SensorState:
        """What the last sensor noted."""

    def set_sensor_state(self, batch_sequence: int, ring_position: int) -> None:
        """Note what the broker has acknowledged."""

    def processes(self) -> Iterable[tuple[int, ProcessValue]]:
        """Every process the kernel programs know, by tgid."""


class EventSource(Protocol):
    """The kernel side as far as it reports."""

    @property
    def ring(self) -> Ring:
        """Where events come from."""

    @property
    def state(self) -> State:
        """The pinned maps."""

    def inventory(self) -> Iterator[None]:
        """Put what is there already on the ring, in parts of a quarter of it at most."""

    def counters(self) -> Mapping[str, int]:
        """The kernel's loss counters."""

    def sequences(self) -> list[int]:
        """Per possible CPU: events attempted."""
