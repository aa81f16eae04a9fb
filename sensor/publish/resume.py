# SPDX-License-Identifier: Apache-2.0
"""Where a sensor goes on: batch number and event positions. Pure.

The ring's own positions begin at 0 with every fresh load, but an event's position must be unique on one
boot, or a reader would take the events of a second load for ones it has seen. So each fresh load adds a
base: the seconds since boot, each worth more bytes than a ring can carry in a second. It needs no place of
its own in the kernel: ``sensor_state.ring_position`` holds base and position together, the position is at
most one ring ahead of the consumer's, and a ring is smaller than the step between bases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# 4 GB/s: above what the memory bus carries as events; 2^31 seconds of uptime still fit a signed long.
BASE_STEP: Final = 1 << 32
_NS_PER_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Resume:
    """What to go on from.

    Attributes:
        base: Added to a ring position it gives the published one.
        batch_sequence: Of the last batch acknowledged; 0 when there was none.
        ring_position: Where to read from; above the consumer position when the sensor before was ended
            between noting an acknowledgement and releasing the ring.
        fresh: True when nothing was published since the maps were made.
    """

    base: int
    batch_sequence: int
    ring_position: int
    fresh: bool


def resume(batch_sequence: int, published_position: int, consumer_position: int, boot_ns: int) -> Resume:
    """Read what the last sensor left.

    Args:
        batch_sequence: From ``sensor_state``.
        published_position: From ``sensor_state``: base and position; 0 after a fresh load.
        consumer_position: The ring's own.
        boot_ns: CLOCK_BOOTTIME now.
    """
    if not published_position:
        # The whole second that has begun: the load before, if any, was at an earlier one (it compiled).
        base = (boot_ns // _NS_PER_S + 1) * BASE_STEP
        return Resume(base, batch_sequence, consumer_position, fresh=True)
    ahead = published_position - consumer_position
    base = ahead - ahead % BASE_STEP
    return Resume(base, batch_sequence, published_position - base, fresh=False)
