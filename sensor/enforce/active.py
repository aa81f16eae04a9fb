# SPDX-License-Identifier: Apache-2.0
"""An order in force, or on its way into the kernel or out of it: what the controller remembers of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sensor.enforce.apply import Refusals
from sensor.enforce.process_cut import Cut

if TYPE_CHECKING:
    from sensor.enforce.order import Order

_MS: Final = 1_000_000

# A failed order is tried at the next tick, then after twice as long each time up to this: a full map may
# have room again soon, and a workload that is not there yet is tried as soon as it appears anyway.
FIRST_RETRY_NS: Final = 100 * _MS
LONGEST_RETRY_NS: Final = 5000 * _MS


@dataclass(slots=True)
class Active:
    """One subject's order.

    Attributes:
        order: The newest order.
        expires_boot_ns: When it ends, CLOCK_BOOTTIME; 0 when it is to end now.
        applied_boot_ns: After the last map write; 0 while it is not in the kernel.
        cut: What was reached.
        refusals: What the kernel counted when last asked.
        refusal_reported: FIRST_REFUSAL was sent.
        failure: Why it is not in the kernel, as last reported.
        retry_at_ns: When to try again, CLOCK_BOOTTIME; 0: nothing failed.
        retry_after_ns: The pause after the next failure.
        rescan: Descendants may have been missed, or are to be ended yet.
        kill_rounds: How often those who are left were ended again.
    """

    order: Order
    expires_boot_ns: int
    applied_boot_ns: int = 0
    cut: Cut = field(default_factory=lambda: Cut(0, 0))
    refusals: Refusals = field(default_factory=Refusals)
    refusal_reported: bool = False
    failure: str = ""
    retry_at_ns: int = 0
    retry_after_ns: int = FIRST_RETRY_NS
    rescan: bool = False
    kill_rounds: int = 0

    def succeeded(self, now_ns: int, cut: Cut) -> None:
        """Note that it is in the kernel."""
        self.applied_boot_ns = now_ns
        self.cut = cut
        self.failure = ""
        self.retry_at_ns = 0
        self.retry_after_ns = FIRST_RETRY_NS

    def failed(self, now_ns: int, reason: str) -> bool:
        """Note that it is not, and when to try again; True when the reason is a new one."""
        news = reason != self.failure
        self.failure = reason
        self.applied_boot_ns = 0
        self.retry_at_ns = now_ns + self.retry_after_ns
        self.retry_after_ns = min(2 * self.retry_after_ns, LONGEST_RETRY_NS)
        return news
