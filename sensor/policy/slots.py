# SPDX-License-Identifier: Apache-2.0
"""Which slot each workload has, for as long as it lives: sockets remember it. Pure.

Failure: with all slots taken a workload gets none, and its caller gives it the host's or the unknown
workloads' (counted).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sensor.policy.layout import SLOT_UNKNOWN
from sensor.policy.limits import QUARANTINE_NS, SLOT_SELF_TEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_FIRST: Final = SLOT_UNKNOWN + 1


class Slots:
    """Subject (a workload id, or a part of one) to slot.

    ``exhausted`` counts subjects that got none.
    """

    def __init__(self) -> None:
        self._slot_of: dict[str, int] = {}
        self._free_after: dict[int, int] = {}
        self._next = _FIRST
        self.exhausted = 0

    def adopt(self, slots: Mapping[str, int], others: Iterable[int] = ()) -> None:
        """What an earlier sensor gave; others are in use by nobody knows whom, so they rest a while."""
        self._slot_of = {subject: slot for subject, slot in slots.items() if _FIRST <= slot < SLOT_SELF_TEST}
        taken = set(self._slot_of.values())
        self._free_after = {
            slot: QUARANTINE_NS for slot in others if _FIRST <= slot < SLOT_SELF_TEST and slot not in taken
        }

    def get(self, subject: str) -> int | None:
        """The slot a subject has."""
        return self._slot_of.get(subject)

    def assign(self, subject: str, now_ns: int) -> int | None:
        """The slot of a subject, a new one if it has none yet; None when all are taken."""
        slot = self._slot_of.get(subject)
        if slot is None:
            slot = self._unused(now_ns)
            if slot is None:
                self.exhausted += 1
                return None
            self._slot_of[subject] = slot
        return slot

    def release(self, subject: str, now_ns: int) -> int | None:
        """A workload is gone; its slot, which rests before it is given to another."""
        slot = self._slot_of.pop(subject, None)
        if slot is not None:
            self._free_after[slot] = now_ns + QUARANTINE_NS
        return slot

    def subjects(self) -> frozenset[str]:
        """Who has a slot."""
        return frozenset(self._slot_of)

    def _unused(self, now_ns: int) -> int | None:
        rested = [slot for slot, after in self._free_after.items() if after <= now_ns]
        for slot in rested:
            del self._free_after[slot]
        taken = self._free_after.keys() | set(self._slot_of.values())
        if len(taken) >= SLOT_SELF_TEST - _FIRST:
            return None
        while self._next in taken:
            self._next = self._next + 1 if self._next + 1 < SLOT_SELF_TEST else _FIRST
        slot = self._next
        self._next = slot + 1 if slot + 1 < SLOT_SELF_TEST else _FIRST
        return slot
