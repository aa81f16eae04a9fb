# SPDX-License-Identifier: Apache-2.0
"""What the sensor has to say about itself, on its way into the event stream.

Input: :meth:`Notices.notice` from any thread. Output: SensorNotice events at the end of the next batch.
Failure: a full queue refuses the newest, and counts it: the first word on a flood says the most.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sensor.publish.batch import Event
    from sensor.publish.losses import Losses

# One for each message of a flood of forged enforcement would be a second flood.
MAX_WAITING: Final = 256
# A notice stands between the last event and the end of its batch, so that positions stay unique and grow:
# a record takes at least 64 bytes, so the last 48 positions are nobody's.
SLOTS: Final = 48
# Kinds the schema knows.
KINDS: Final = frozenset({"STARTED", "ADOPTED", "ENFORCEMENT_REFUSED", "SELF_TEST"})
_MAX_TEXT: Final = 512


class Notices:
    """A bounded queue of notices.

    Args:
        losses: Where a refused notice is counted.
    """

    def __init__(self, losses: Losses) -> None:
        self._losses = losses
        self._waiting: deque[tuple[int, str, str, str, dict[str, Any] | None]] = deque()
        self._ring_end = -1
        self._used = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def notice(
        self, kind: str, subject: str, detail: str, *, self_test: dict[str, Any] | None = None
    ) -> None:
        """Report something.

        Args:
            kind: STARTED, ADOPTED, ENFORCEMENT_REFUSED or SELF_TEST.
            subject: Enforcement subject, or empty.
            detail: In words an operator understands; cut at 512 characters.
            self_test: ``SelfTest`` record, for SELF_TEST.

        Raises:
            ValueError: The schema has no such kind.
        """
        if kind not in KINDS:
            raise ValueError(f"no notice kind {kind!r}")
        if len(self._waiting) >= MAX_WAITING:
            self._losses.enforcement__notices_full += 1
            return
        ktime_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._waiting.append((ktime_ns, kind, subject[:_MAX_TEXT], detail[:_MAX_TEXT], self_test))

    def take(self, ring_end: int) -> list[Event]:
        """The waiting ones as events of a batch that ends there; those without a free position wait on."""
        if ring_end != self._ring_end:
            self._ring_end = ring_end
            self._used = 0
        events: list[Event] = []
        while self._waiting and self._used < SLOTS:
            ktime_ns, kind, subject, detail, self_test = self._waiting.popleft()
            events.append((
                "nsp.SensorNotice",
                {
                    "position": ring_end - SLOTS + self._used,
                    "ktime_ns": ktime_ns,
                    "process": 0,
                    "kind": kind,
                    "subject": subject,
                    "detail": detail,
                    "self_test": self_test,
                },
            ))  # fmt: skip
            self._used += 1
        return events
