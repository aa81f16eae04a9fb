# SPDX-License-Identifier: Apache-2.0
"""The two clocks enforcement lives by: orders expire in wall time, the kernel counts boot time."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Both in nanoseconds."""

    def wall_ns(self) -> int:
        """CLOCK_REALTIME."""

    def boot_ns(self) -> int:
        """CLOCK_BOOTTIME."""


class SystemClock:
    """The machine's own."""

    def wall_ns(self) -> int:
        """CLOCK_REALTIME."""
        return time.time_ns()

    def boot_ns(self) -> int:
        """CLOCK_BOOTTIME."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
