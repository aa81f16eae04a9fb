# SPDX-License-Identifier: Apache-2.0
"""How many refusals are reported one by one; all are counted."""

from __future__ import annotations

from typing import Final

# Enough to see an attack begin and what it looks like; a flood of forged messages must not become a flood
# of events and statuses of our own.
BURST: Final = 32
REFILL_NS: Final = 1_000_000_000


class Budget:
    """A token bucket: ``BURST`` at once, then one each ``REFILL_NS``."""

    def __init__(self) -> None:
        self._tokens = BURST
        self._refilled_ns = 0

    def take(self, now_ns: int) -> bool:
        """Use one token; False when there is none."""
        if not self._refilled_ns:
            self._refilled_ns = now_ns
        earned = (now_ns - self._refilled_ns) // REFILL_NS
        if earned > 0:
            self._tokens = min(BURST, self._tokens + earned)
            self._refilled_ns += earned * REFILL_NS
        if not self._tokens:
            return False
        self._tokens -= 1
        return True
