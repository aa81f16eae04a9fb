# SPDX-License-Identifier: Apache-2.0
"""One attack's account: its cut as the sensor acknowledged it, against what the attacker received.

Input: two enforcement statuses and the attacker's own log. Output: the four times, and what arrived
before and after the map was written. An attack is judged by its own cut and its own ports only, so
that a second attack neither hides nor excuses what leaked from the first.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Times:
    """The four times of one response, CLOCK_BOOTTIME nanoseconds of the node."""

    first_forbidden_event_ns: int
    decided_ns: int
    map_written_ns: int
    first_refused_ns: int

    def after_first_ms(self, moment_ns: int) -> float:
        """Return how long after the first forbidden event a moment was, in ms."""
        return round((moment_ns - self.first_forbidden_event_ns) / NS_PER_MS, 3)


@dataclass(frozen=True, slots=True)
class Attack:
    """What one attack came to."""

    times: Times
    bytes_before_block: int
    bytes_after_block: int
    beacons_after_block: int

    @property
    def shell_opened(self) -> bool:
        """Whether the attacker had a shell that answered, before the cut."""
        return self.bytes_before_block > 0


def boot_to_wall_ns() -> int:
    """Return what to add to CLOCK_BOOTTIME to get CLOCK_REALTIME on this machine, now."""
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def times_of(applied: Mapping[str, Any], refused: Mapping[str, Any], boot_to_wall: int) -> Times:
    """Return the four times of a cut from its acknowledgement and its first refusal."""
    return Times(
        applied["evidence_boot_ns"],
        applied["issued_at_ns"] - boot_to_wall,
        applied["applied_boot_ns"],
        refused["first_refused_boot_ns"],
    )


def account(number: int, times: Times, lines: Sequence[Mapping[str, Any]], boot_to_wall: int) -> Attack:
    """Return the account of attack ``number`` (from 1), from the attacker's log so far."""
    blocked_at = times.map_written_ns + boot_to_wall
    own = [line for line in lines if line.get("attack") == number and "at_wall_ns" in line]
    late = [line for line in own if line["at_wall_ns"] > blocked_at]
    size = sum(line.get("bytes", 0) for line in own)
    size_late = sum(line.get("bytes", 0) for line in late)
    beacons_late = sum(line.get("event") == "beacon" for line in late)
    return Attack(times, size - size_late, size_late, beacons_late)
