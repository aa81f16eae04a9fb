# SPDX-License-Identifier: Apache-2.0
"""The newest generation obeyed for each subject: what tells a new order from a replayed one.

A generation is remembered until the latest expiry seen for its subject has passed; after that any older
order is refused as expired anyway. The ledger is rebuilt from the topic at start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sensor.enforce.errors import Refused

if TYPE_CHECKING:
    from schemas.subject import Subject
    from sensor.enforce.order import Order

# Four times what the kernel holds in quarantines: beyond it orders are refused rather than forgotten,
# because a forgotten generation could be replayed.
MAX_SUBJECTS: Final = 4096


@dataclass(slots=True)
class _Entry:
    generation: int
    until_ns: int


class Ledger:
    """Generations by subject."""

    def __init__(self, max_subjects: int = MAX_SUBJECTS) -> None:
        self._entries: dict[Subject, _Entry] = {}
        self._max_subjects = max_subjects

    def __len__(self) -> int:
        return len(self._entries)

    def admit(self, order: Order, now_ns: int) -> bool:
        """Take note of an order.

        Args:
            order: A verified order.
            now_ns: Wall time.

        Returns:
            True when it is newer than all before, False when it is the newest one once more.

        Raises:
            Refused: ``replayed``, or ``too-many-subjects``.
        """
        entry = self._entries.get(order.subject)
        if entry is None:
            if len(self._entries) >= self._max_subjects:
                self.forget_expired(now_ns)
            if len(self._entries) >= self._max_subjects:
                detail = f"{self._max_subjects} subjects are under enforcement already"
                raise Refused("too-many-subjects", detail, str(order.subject), order.generation)
            self._entries[order.subject] = _Entry(order.generation, order.expires_at_ns)
            return True
        if order.generation < entry.generation:
            detail = f"generation {entry.generation} was obeyed before"
            raise Refused("replayed", detail, str(order.subject), order.generation)
        newer = order.generation > entry.generation
        entry.generation = order.generation
        entry.until_ns = max(entry.until_ns, order.expires_at_ns)
        return newer

    def forget_expired(self, now_ns: int) -> None:
        """Drop the subjects all of whose orders have expired."""
        for subject in [each for each, entry in self._entries.items() if entry.until_ns <= now_ns]:
            del self._entries[subject]
