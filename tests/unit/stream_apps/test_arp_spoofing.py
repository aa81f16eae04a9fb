# SPDX-License-Identifier: Apache-2.0
"""nsp.arp-spoofing: what an alert says, how many there are, what is cut and what is left out."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.batches import Node
from tests.support.stream import cut, pipeline, rules, run

RULE = "nsp.arp-spoofing"


def claim(node: Node, process: int = 0, **fields: Any) -> None:
    node.add(
        "ArpSpoofing", process,
        **{
            "workload": 1, "interface_index": 2, "network_namespace": 4026532511, "protocol": "ARP",
            "operation": 2, "vlan": 0, "outgoing": bool(process), "sender_address": "10.1.2.1",
            "sender_mac": "02:00:00:00:00:66", "target_address": "10.1.2.3",
            "target_mac": "02:00:00:00:00:03", "source_mac": "02:00:00:00:00:66",
            "known_mac": "02:00:00:00:00:01", "known_age_ns": 5, "finding": "GATEWAY",
            "reason": "ARP_SPOOFING", "alerted_only": False, "generation": 12, **fields,
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    ("finding", "severity"),
    [
        ("GATEWAY", "HIGH"), ("OWN_ADDRESS", "HIGH"), ("CONTRADICTION", "HIGH"), ("FOREIGN_ADDRESS", "HIGH"),
        ("SENDER_MISMATCH", "MEDIUM"), ("UNSOLICITED", "MEDIUM"), ("MALFORMED", "LOW"),
    ],
)  # fmt: skip
def test_each_finding_is_an_alert_of_its_severity_and_cuts_nobody(finding: str, severity: str) -> None:
    node = Node()
    claim(node, finding=finding)
    outcome = run(node)
    assert rules(outcome) == [(RULE, severity)]
    assert not cut(outcome)


def test_the_alert_names_both_macs_the_interface_and_its_workload() -> None:
    node = Node()
    claim(node)
    [alert] = run(node).alerts
    for word in ("10.1.2.1", "02:00:00:00:00:66", "02:00:00:00:00:01", "interface 2", "dropped"):
        assert word in alert["description"]
    assert alert["workload"]["id"] == node.workloads[1]["id"]
    assert alert["attack"] == ["T1557.002"]


def test_an_attack_of_many_frames_is_one_alert_an_interface() -> None:
    node = Node()
    through = pipeline()
    for number in range(50):
        claim(node, sender_address=f"10.1.2.{number}", finding="CONTRADICTION")
        claim(node)
    assert rules(run(node, through)) == [(RULE, "HIGH")]
    claim(node)
    assert not run(node, through).alerts
    claim(node, interface_index=3)
    assert rules(run(node, through)) == [(RULE, "HIGH")]


def test_the_gateway_describes_a_finding_whatever_came_first() -> None:
    node = Node()
    claim(node, finding="SENDER_MISMATCH")
    claim(node)
    [alert] = run(node).alerts
    assert "gateway" in alert["description"]


def test_a_process_that_sends_such_frames_here_is_named() -> None:
    node = Node()
    actor = node.spawn(node.service("/usr/sbin/nginx", ["nginx"]), "/tmp/ettercap")
    claim(node, actor, finding="FOREIGN_ADDRESS")
    [alert] = run(node).alerts
    assert "ettercap" in alert["description"]
    assert alert["lineage"][0]["executable"] == "/tmp/ettercap"


def test_a_profile_without_arp_is_no_spoofing() -> None:
    node = Node()
    claim(node, finding="PROTOCOL", reason="L3_PROTOCOL")
    assert not run(node).alerts


@pytest.mark.parametrize(
    ("exclusion", "excluded"),
    [
        ({"destinations": ["10.1.2.0/30"]}, True),
        ({"destinations": ["10.9.0.0/16"]}, False),
        ({"workloads": ["nobody/*"]}, False),
        ({"workloads": ["*"]}, True),
        ({"namespaces": ["no-such"]}, False),
        ({"actors": ["*"]}, False),
    ],
)
def test_exclusions_are_about_the_interfaces_workload_and_the_address_claimed(
    exclusion: dict[str, Any], excluded: bool
) -> None:
    node = Node()
    claim(node)
    rule = {"exclusions": [{"reason": "known", **exclusion}]}
    outcome = run(node, pipeline(detect={RULE: rule}))
    assert bool(outcome.alerts) is not excluded
