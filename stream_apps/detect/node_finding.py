# SPDX-License-Identifier: Apache-2.0
"""What a rule found about a node as a whole: the ground of an alert that no process is behind.

Input: what :mod:`stream_apps.detect.sensor_silence` and :mod:`stream_apps.detect.self_test` saw. Output: the
``Alert`` record. The id derives from rule, node and ring position, so the same batches give the same one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stream_apps.detect.scene import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_apps.detect.rule import Rule, Severity


@dataclass(frozen=True, slots=True)
class NodeFinding:
    """Ground of an alert.

    Attributes:
        rule: The rule.
        node: Node.
        boot_id: Its boot.
        workload: The host's ``Workload`` record.
        severity: How bad.
        position: Ring position of what shows it.
        wall_ns: When it was noticed; of silence, when the node was heard last.
        boot_ns: The same, CLOCK_BOOTTIME.
        says: What happened, after "The sensor of <node>".
        kind: What of the rule's it is; of one kind there is one at a position.
        evidence: Kind of the record that shows it.
    """

    rule: Rule
    node: str
    boot_id: str
    workload: Mapping[str, Any]
    severity: Severity
    position: int
    wall_ns: int
    boot_ns: int
    says: str
    kind: str
    evidence: str = "EventBatch"

    def alert_id(self) -> str:
        """32 hex digits, the same for the same batches."""
        text = f"{self.rule.id}\n{self.kind}\n{self.node}\n{self.boot_id}\n{self.position}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def alert(self, workload: Mapping[str, Any], response: Mapping[str, Any], now_ns: int) -> dict[str, Any]:
        """Make the ``Alert`` record, of the ``AlertWorkload`` and ``AlertResponse`` records."""
        evidence = {
            "position": self.position, "ktime_ns": self.boot_ns, "kind": self.evidence, "summary": self.says,
        }  # fmt: skip
        return {
            "id": self.alert_id(),
            "rule_id": self.rule.id,
            "title": self.rule.title,
            "description": f"The sensor of {shown(self.node)} {self.says}.",
            "severity": self.severity,
            "attack": list(self.rule.attack),
            "node": self.node,
            "boot_id": self.boot_id,
            "observed_at_ns": self.wall_ns,
            "observed_boot_ns": self.boot_ns,
            "detected_at_ns": now_ns,
            "workload": dict(workload),
            "lineage": [],
            "evidence": [evidence],
            "remote_address": None,
            "remote_port": None,
            "dns_name": None,
            "response": dict(response),
        }
