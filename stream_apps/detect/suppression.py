# SPDX-License-Identifier: Apache-2.0
"""One alert per rule and process tree, not one per packet.

Input: findings of batch after batch. Output: whether a finding is a new alert. It is when the tree is new to
the rule, its level is higher than before, nothing was done yet and the severity is higher, or the window
since the last alert is over. Time is that of the evidence, so a replay suppresses what was suppressed live.

Failure: bounded; a tree forgotten (counted) is alerted again by its next evidence. So is everything after a
restart that could not read back; the id of an alert repeated from the same evidence is the same.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from stream_apps.detect.rule import RANK, Severity, level

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_apps.detect.findings import Finding, TreeKey

# Trees under alert at once, cluster-wide; beyond it, an attack has more trees than people can look at.
MAX_TREES: Final = 20_000
# A response that a limit put off is decided again by evidence this much later.
RETRY_NS: Final = 5_000_000_000

Key = tuple[str, str, "TreeKey"]


@dataclass(slots=True)
class Told:
    """An alert that was given.

    Attributes:
        alert_id: Its id.
        severity: Its severity.
        settled: A response was decided on; a higher severity of the same level changes nothing.
        until_ns: Wall ns; evidence before it is no news.
        since: Sightings that were no news.
    """

    alert_id: str
    severity: Severity
    settled: bool
    until_ns: int
    since: int = 0

    def is_surpassed_by(self, severity: Severity) -> bool:
        """Whether evidence of a severity is news even now."""
        if level(severity) > level(self.severity):
            return True
        return not self.settled and RANK[severity] > RANK[self.severity]


class Suppression:
    """Remembers what was told.

    Attributes:
        suppressed: Findings that were no news.
        evicted: Trees forgotten because of the bound.
    """

    def __init__(self, window_ns: int, max_trees: int = MAX_TREES) -> None:
        self.suppressed = 0
        self.evicted = 0
        self._window_ns = window_ns
        self._max_trees = max_trees
        self._told: OrderedDict[Key, Told] = OrderedDict()

    def __len__(self) -> int:
        return len(self._told)

    def retune(self, window_ns: int) -> None:
        """Another window, for alerts from now on; those that were told stay told as long as they were."""
        self._window_ns = window_ns

    def told(self, node: str, boot_id: str, finding: Finding, wall_ns: int) -> Told | None:
        """The alert that a finding is no news after; None when it is news."""
        found = self._told.get((node, boot_id, finding.key))
        if found is None or wall_ns >= found.until_ns or found.is_surpassed_by(finding.severity):
            return None
        self.suppressed += 1
        found.since += finding.count
        return found

    def summed(self, node: str, boot_id: str, finding: Finding) -> int:
        """How many sightings came since the last alert that were no news."""
        found = self._told.get((node, boot_id, finding.key))
        return found.since if found else 0

    def tell(self, node: str, boot_id: str, finding: Finding, alert: Mapping[str, Any], retry: bool) -> None:
        """Remember an alert.

        Args:
            node: Node.
            boot_id: Its boot.
            finding: What was told.
            alert: The ``Alert`` record.
            retry: The response was put off: evidence is news again after ``RETRY_NS``.
        """
        key = node, boot_id, finding.key
        self._told[key] = Told(
            alert_id=alert["id"],
            severity=finding.severity,
            settled=alert["response"]["decision"] != "none",
            until_ns=alert["observed_at_ns"] + (RETRY_NS if retry else self._window_ns),
        )
        self._told.move_to_end(key)
        if len(self._told) > self._max_trees:
            self._told.popitem(last=False)
            self.evicted += 1
