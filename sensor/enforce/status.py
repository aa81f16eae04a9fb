# SPDX-License-Identifier: Apache-2.0
"""Words what became of each order.

Input: orders, refusals, and what was reached. Output: EnforcementStatus records for
nsp.enforcement-status. Pure: nothing fails here and nothing is sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sensor.enforce.apply import Refusals
from sensor.enforce.process_cut import Cut

if TYPE_CHECKING:
    from sensor.enforce.errors import Refused
    from sensor.enforce.order import Order

Outcome = Literal["APPLIED", "FIRST_REFUSAL", "ENDED", "REFUSED", "FAILED"]


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who reports.

    Attributes:
        node: Node name.
        boot_id: Boot id.
    """

    node: str
    boot_id: str

    def status(  # noqa: PLR0913 - the parts of one report
        self,
        order: Order,
        outcome: Outcome,
        *,
        now_ns: int,
        reason: str = "",
        cut: Cut | None = None,
        applied_boot_ns: int = 0,
        refusals: Refusals | None = None,
    ) -> dict[str, Any]:
        """A status about an order.

        Args:
            order: The order.
            outcome: What happened.
            now_ns: Wall time of the report.
            reason: Why, when that needs saying.
            cut: What was reached.
            applied_boot_ns: After the last map write; 0 if none.
            refusals: What the kernel counted so far.
        """
        reached = cut or Cut(0, 0)
        counted = refusals or Refusals()
        return self._record(
            subject=str(order.subject),
            generation=order.generation,
            outcome=outcome,
            reason=reason,
            processes=reached.processes,
            sockets=reached.sockets,
            alert_id=order.alert_id,
            evidence_boot_ns=order.evidence_boot_ns,
            issued_at_ns=order.issued_at_ns,
            applied_boot_ns=applied_boot_ns,
            first_refused_boot_ns=counted.first_ns,
            refused_calls=counted.calls,
            refused_packets=counted.packets,
            reported_at_ns=now_ns,
            killed=reached.killed,
            kill_refused=reached.kill_refused,
        )

    def refused(self, refusal: Refused, now_ns: int) -> dict[str, Any]:
        """A status about a message that was not obeyed and perhaps not even readable."""
        return self._record(
            subject=refusal.subject,
            generation=refusal.generation,
            outcome="REFUSED",
            reason=str(refusal),
            processes=0,
            sockets=0,
            alert_id="",
            evidence_boot_ns=0,
            issued_at_ns=0,
            applied_boot_ns=0,
            first_refused_boot_ns=0,
            refused_calls=0,
            refused_packets=0,
            reported_at_ns=now_ns,
            killed=0,
            kill_refused="",
        )

    def _record(self, **fields: Any) -> dict[str, Any]:
        return {"node": self.node, "boot_id": self.boot_id, **fields}
