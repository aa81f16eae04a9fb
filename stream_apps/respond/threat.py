# SPDX-License-Identifier: Apache-2.0
"""What the responder is told and what it answers: the seam between detection and response."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from schemas.subject import ProcessSubject
    from stream_apps.correlate.pods import Pod
    from stream_apps.detect.rule import Destination, Severity
    from stream_apps.respond.waiting import Waiting

ActionName = Literal["alert", "none", "quarantine-process", "block-destination", "quarantine-pod", "kill"]
DecisionName = Literal[
    "issued", "queued", "dry-run", "never-cut", "refused", "rate-limited", "disarmed", "dismantled",
    "expired", "none",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Threat:
    """One alert to respond to.

    Attributes:
        rule_id: Its rule.
        severity: Its severity.
        alert_id: Its id.
        node: Node.
        summary: What was seen, for the enforcement's reason.
        workload: The ``Workload`` record.
        pod: The pod, where known.
        root: The process whose tree would be cut; None where there is none.
        root_images: The ``ProcessImage`` records of that process.
        destinations: Where it went.
        observed_ns: Wall time of the evidence.
        observed_boot_ns: The same, CLOCK_BOOTTIME.
        again: A person had it looked at once more: what this alert wants is ordered, whether it was or not.
    """

    rule_id: str
    severity: Severity
    alert_id: str
    node: str
    summary: str
    workload: Mapping[str, Any]
    pod: Pod | None
    root: ProcessSubject | None
    root_images: tuple[Mapping[str, Any], ...]
    destinations: tuple[Destination, ...]
    observed_ns: int
    observed_boot_ns: int
    again: bool = False

    @property
    def executable(self) -> str:
        """Of the process that would be cut; empty where there is none."""
        return str(self.root_images[0]["executable"]) if self.root_images else ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What one action came to.

    Attributes:
        action: Which.
        decision: What was decided.
        reason: Why, for people.
        subject: Enforcement subject, or empty.
        generation: Generation in force by this decision, or 0.
        expires_at_ns: When it ends, or 0.
        enforcement: The ``Enforcement`` record to publish; None when there is nothing new to say.
        waiting: What waits for the disarmer's or a person's say.
    """

    action: ActionName
    decision: DecisionName
    reason: str
    subject: str = ""
    generation: int = 0
    expires_at_ns: int = 0
    enforcement: dict[str, Any] | None = None
    waiting: Waiting | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """What was decided on a threat.

    Attributes:
        record: The ``AlertResponse`` record.
        enforcements: ``Enforcement`` records to publish.
        retry: A limit put it off: the next evidence is to be decided anew.
        decisions: One for each action of the policy.
        policy: Name of the policy; empty: none fits.
    """

    record: dict[str, Any]
    enforcements: tuple[dict[str, Any], ...]
    retry: bool
    decisions: tuple[Decision, ...] = ()
    policy: str = ""
