# SPDX-License-Identifier: Apache-2.0
"""What became of each action, as an event on ``nsp.alerts``.

Input: what an action is about, its status, the times. Output: ``Alert`` records of rule ``nsp.response``
with the ``audit`` part, which readers of alerts may pass over: severity INFORMATIONAL. A disarmer that
disarms or dismantles is loud: rule ``nsp.response-disarmed``, severity HIGH. Ids come from what happened, so
that a repetition is the same event. Pure.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from stream_apps.respond.times import TimeToBlock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_apps.detect.rule import Severity
    from stream_apps.respond.disarmer import Change

RULE_ID: Final = "nsp.response"
DISARMED_RULE_ID: Final = "nsp.response-disarmed"
_ID_DIGITS: Final = 32
_NOWHERE: Final[Mapping[str, Any]] = {
    "namespace": None, "pod": None, "pod_uid": None, "container": None, "container_id": None, "image": None,
    "owner": None, "service_account": None, "labels": {},
}  # fmt: skip

Status = Literal[
    "performed", "partial", "queued", "refused", "disarmed", "dismantled", "expired", "undone", "rate-limited"
]


@dataclass(frozen=True, slots=True)
class About:
    """One action.

    Attributes:
        action: Which.
        node: Node.
        boot_id: Its boot, where known.
        subject: Whom.
        rule_id: Rule behind it; empty for a person's order.
        policy: Policy behind it, likewise.
        alert_id: The alert, likewise.
        by: The person, where one had a say.
        observed_ns: Wall time of the evidence.
        observed_boot_ns: The same, CLOCK_BOOTTIME.
        workload: ``Workload`` record, as far as known.
    """

    action: str
    node: str
    boot_id: str
    subject: str
    rule_id: str = ""
    policy: str = ""
    alert_id: str = ""
    by: str = ""
    observed_ns: int = 0
    observed_boot_ns: int = 0
    workload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Happened:
    """What became of it.

    Attributes:
        status: The word.
        reason: Why, for people.
        at_ns: When, wall.
        generation: Of the order, or 0.
        expires_ns: When it ends, or 0.
        times: The four times, as far as they are known.
        reopened: What is open again.
        processes: Processes ended.
    """

    status: Status
    reason: str
    at_ns: int
    generation: int = 0
    expires_ns: int = 0
    times: TimeToBlock | None = None
    reopened: Sequence[str] = ()
    processes: int = 0


def audit_event(
    about: About, happened: Happened, workload: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The ``Alert`` record; ``workload`` is the ``AlertWorkload`` record where more is known than its id."""
    times = happened.times or TimeToBlock(
        about.node, about.subject, about.alert_id, about.observed_boot_ns, 0
    )
    return _alert(
        (RULE_ID, about.node, about.subject, about.action, about.alert_id, happened.generation,
         happened.status, bool(times.first_refused_boot_ns)),
        {
            "rule_id": RULE_ID,
            "title": f"Response {about.action}: {happened.status}",
            "description": f"{about.action} of {about.subject} on {about.node}: {happened.status}"
            + (f": {happened.reason}" if happened.reason else ""),
            "severity": "INFORMATIONAL",
            "node": about.node,
            "boot_id": about.boot_id,
            "observed_at_ns": about.observed_ns,
            "observed_boot_ns": about.observed_boot_ns,
            "detected_at_ns": happened.at_ns,
            "workload": dict(workload) if workload else _workload(about.workload.get("id") or about.subject),
            "response": _response(about, happened),
            "verdict": None,
            "audit": {
                "alert_id": about.alert_id,
                "rule_id": about.rule_id,
                "policy": about.policy,
                "status": happened.status,
                "by": about.by,
                "first_seen_boot_ns": times.evidence_boot_ns,
                "decided_boot_ns": times.decided_boot_ns,
                "map_written_boot_ns": times.applied_boot_ns,
                "first_refused_boot_ns": times.first_refused_boot_ns,
                "reopened": list(happened.reopened),
                "processes_ended": happened.processes,
            },
        },
    )  # fmt: skip


def disarmed_alert(change: Change, node: str = "") -> dict[str, Any]:
    """The ``Alert`` record of a disarmer's change; a rule that is armed again is only informational."""
    severity: Severity = "INFORMATIONAL" if change.state == "armed" else "HIGH"
    consequence = "It responds again." if change.state == "armed" else "It goes on alerting and cuts nothing."
    about = About("alert", node, "", "")
    return _alert(
        (DISARMED_RULE_ID, change.name, change.state, change.at_ns),
        {
            "rule_id": DISARMED_RULE_ID,
            "title": f"Response of {change.name} {change.state}",
            "description": f"{change.name} is {change.state}: {change.reason}. {consequence}",
            "severity": severity,
            "node": node,
            "boot_id": "",
            "observed_at_ns": change.at_ns,
            "observed_boot_ns": 0,
            "detected_at_ns": change.at_ns,
            "workload": _workload(change.name),
            "response": _response(about, Happened("refused", change.reason, change.at_ns))
            | {"decision": "none"},
            "audit": None,
            "verdict": None,
        },
    )


def _alert(evidence: Sequence[object], fields: Mapping[str, Any]) -> dict[str, Any]:
    text = "\0".join(str(each) for each in evidence)
    digest = hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]
    rest: dict[str, Any] = {
        "attack": [],
        "lineage": [],
        "evidence": [],
        "remote_address": None,
        "remote_port": None,
        # The pipeline says which were in force.
        "config_version": "",
        "rules_version": "",
    }
    return {"id": digest, **rest, "dns_name": None, **fields}


def _response(about: About, happened: Happened) -> dict[str, Any]:
    return {
        "action": about.action,
        "decision": happened.status,
        "subject": about.subject,
        "generation": happened.generation,
        "expires_at_ns": happened.expires_ns,
        "reason": happened.reason,
    }


def _workload(workload_id: str) -> dict[str, Any]:
    return {"id": workload_id, "kind": "HOST", "cgroup_path": "", **_NOWHERE}
