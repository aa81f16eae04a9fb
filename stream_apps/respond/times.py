# SPDX-License-Identifier: Apache-2.0
"""How long it took: evidence in the kernel, decided, written to the kernel's map, first refusal.

Input: what was issued here, and the sensors' ``EnforcementStatus`` records. Output: :class:`TimeToBlock`, all
four instants on the node's boot clock. Failure: bounded; what is forgotten is not reported.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

# A sensor answers within a second; a minute of the fastest allowed cutting fits.
MAX_AWAITED: Final = 4096

Key = tuple[str, str, int]
"""Node, subject and generation."""


@dataclass(frozen=True, slots=True)
class TimeToBlock:
    """The four instants of one enforcement; 0 for what has not happened.

    Attributes:
        node: Node.
        subject: Subject.
        alert_id: Alert.
        evidence_boot_ns: First forbidden event, in the kernel.
        decided_boot_ns: When it was decided: the stream app's wall clock, by the batch's anchor.
        applied_boot_ns: The kernel's map was written.
        first_refused_boot_ns: First packet or call refused.
    """

    node: str
    subject: str
    alert_id: str
    evidence_boot_ns: int
    decided_boot_ns: int
    applied_boot_ns: int = 0
    first_refused_boot_ns: int = 0

    @property
    def time_to_block_ns(self) -> int:
        """From the first forbidden event to the map written; 0 before that."""
        return self.applied_boot_ns - self.evidence_boot_ns if self.applied_boot_ns else 0


class Times:
    """Enforcements that wait for their sensor's word.

    Attributes:
        evicted: Forgotten because of the bound.
    """

    def __init__(self, max_awaited: int = MAX_AWAITED) -> None:
        self.evicted = 0
        self._max_awaited = max_awaited
        self._awaited: OrderedDict[Key, TimeToBlock] = OrderedDict()

    def __len__(self) -> int:
        return len(self._awaited)

    def issued(self, enforcement: Mapping[str, Any], wall_offset_ns: int) -> None:
        """Remember an enforcement; ``wall_offset_ns`` is the node's wall clock minus its boot clock."""
        key = enforcement["node"], enforcement["subject"], enforcement["generation"]
        self._awaited[key] = TimeToBlock(
            node=enforcement["node"],
            subject=enforcement["subject"],
            alert_id=enforcement["alert_id"],
            evidence_boot_ns=enforcement["evidence_boot_ns"],
            decided_boot_ns=enforcement["issued_at_ns"] - wall_offset_ns,
        )
        if len(self._awaited) > self._max_awaited:
            self._awaited.popitem(last=False)
            self.evicted += 1

    def on_status(self, status: Mapping[str, Any]) -> TimeToBlock | None:
        """Take a sensor's word; what is known by it, None when it is not about something issued here."""
        key = status["node"], status["subject"], status["generation"]
        known = self._awaited.get(key)
        if known is None:
            return None
        known = replace(
            known,
            applied_boot_ns=status["applied_boot_ns"] or known.applied_boot_ns,
            first_refused_boot_ns=status["first_refused_boot_ns"] or known.first_refused_boot_ns,
        )
        if status["outcome"] in ("ENDED", "REFUSED", "FAILED"):
            del self._awaited[key]
        else:
            self._awaited[key] = known
        return known
