# SPDX-License-Identifier: Apache-2.0
"""How common a destination is, and for how long it is known: what RITA raises or lowers a beacon's score by.

Input: which workload contacts which destination, and when. Output: a factor for the score: 15 % up for each
of rare and new, 15 % down for each of common and old. Bounded: destinations, and workloads told apart.
"""

from __future__ import annotations

from typing import Final

from stream_apps.detect.bounded import Bounded

MAX_DESTINATIONS: Final = 50_000
# Workloads told apart, of a destination and of all: beyond, both count as common.
MAX_WORKLOADS: Final = 4096
# RITA's.
RARE: Final = 0.02
COMMON: Final = 0.5
_STEP: Final = 0.15
_DAY_NS: Final = 86_400_000_000_000
NEW_NS: Final = 7 * _DAY_NS
OLD_NS: Final = 30 * _DAY_NS
# With fewer workloads a share says nothing.
_FEW: Final = 10


class _Known:
    __slots__ = ("since_ns", "workloads")

    def __init__(self) -> None:
        self.since_ns = -1
        self.workloads: set[int] = set()


class Prevalence:
    """Knows destinations.

    Attributes:
        destinations: By name or address.
    """

    def __init__(self) -> None:
        self.destinations: Bounded[str, _Known] = Bounded(MAX_DESTINATIONS, _Known)
        self._workloads: set[int] = set()
        self._since_ns = -1

    def contact(self, workload: str, destination: str, now_ns: int) -> None:
        """A workload contacts a destination."""
        known = self.destinations.at(destination)
        if known.since_ns < 0:
            known.since_ns = now_ns
        if self._since_ns < 0:
            self._since_ns = now_ns
        key = hash(workload)
        for each in (known.workloads, self._workloads):
            if len(each) < MAX_WORKLOADS:
                each.add(key)

    def factor(self, destination: str, now_ns: int) -> float:
        """By what a destination's score is multiplied.

        New is only what could be older: as long as we have not looked for a week ourselves, nothing is.
        """
        known = self.destinations.peek(destination)
        if known is None:
            return 1.0
        factor = 1.0
        if len(self._workloads) >= _FEW:
            share = len(known.workloads) / len(self._workloads)
            factor += _STEP if share <= RARE else -_STEP if share >= COMMON else 0.0
        age_ns = now_ns - known.since_ns
        if age_ns >= OLD_NS:
            factor -= _STEP
        elif age_ns <= NEW_NS < now_ns - self._since_ns:
            factor += _STEP
        return factor
