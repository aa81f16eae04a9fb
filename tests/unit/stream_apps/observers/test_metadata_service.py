# SPDX-License-Identifier: Apache-2.0
"""nsp.metadata-service: who may ask for the machine's credentials, and who may not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.batches import Node
from tests.support.learned import Learned
from tests.support.stream import rules, run, whole_pipeline

if TYPE_CHECKING:
    from stream_apps.pipeline import Pipeline

RULE = "nsp.metadata-service"
AWS = "169.254.169.254"


def severities(node: Node, through: Pipeline | None = None) -> list[str]:
    return [severity for rule, severity in rules(run(node, through or whole_pipeline())) if rule == RULE]


@pytest.mark.parametrize("address", [AWS, "fd00:ec2::254", "168.63.129.16", "100.100.100.200"])
def test_a_tool_below_a_service_that_asks_is_told(address: str) -> None:
    node = Node()
    shell = node.spawn(node.service("/usr/sbin/nginx"), "/usr/bin/dash")
    node.connect(node.spawn(shell, "/usr/bin/curl"), address, 80)
    assert severities(node) == ["HIGH"]


def test_a_dropped_program_and_a_tool_in_a_pod_are_told_and_a_tool_on_the_host_less() -> None:
    for workload, executable, severity in (
        (1, "/tmp/agent", "HIGH"), (1, "/usr/bin/curl", "MEDIUM"), (0, "/usr/bin/curl", "LOW"),
    ):  # fmt: skip
        node = Node()
        starter = node.service("/usr/sbin/init", serving=False, workload=workload)
        node.connect(node.spawn(starter, executable), AWS, 80)
        assert severities(node) == [severity]


def test_the_name_and_a_refused_attempt_count_and_the_clouds_resolver_does_not() -> None:
    node = Node()
    tool = node.spawn(node.service("/usr/sbin/nginx"), "/usr/bin/curl")
    node.ask(tool, "metadata.google.internal")
    assert severities(node) == ["HIGH"]
    node = Node()
    tool = node.spawn(node.service("/usr/sbin/nginx"), "/usr/bin/curl")
    node.refuse(tool, AWS, 80)
    assert severities(node) == ["HIGH"]
    node = Node()
    node.send(node.spawn(node.service("/usr/sbin/nginx"), "/usr/bin/curl"), AWS, 53)
    assert severities(node) == []


@pytest.mark.parametrize(("answer", "told"), [(True, []), (None, []), (False, ["MEDIUM"])])
def test_a_service_that_was_learned_without_it_is_told(answer: bool | None, told: list[str]) -> None:
    node = Node()
    node.connect(node.service("/usr/bin/java"), AWS, 80)
    learned = Learned(otherwise=None, values={f"{AWS}:80": answer})
    assert severities(node, whole_pipeline(learned)) == told
    assert (node.workloads[1]["id"], "destination", f"{AWS}:80") in learned.asked


def test_exclusions_and_addresses_are_the_configurations() -> None:
    node = Node()
    node.connect(node.spawn(node.service("/usr/sbin/nginx"), "/usr/bin/curl"), AWS, 80)
    batch = node.batch()
    known = {"exclusions": [{"reason": "known", "destinations": [f"{AWS}/32"], "actors": ["*/curl"]}]}
    for section, count in (({}, 1), (known, 0), ({"addresses": ["192.0.2.1"]}, 0), ({"enabled": False}, 0)):
        outcome = whole_pipeline(detect={RULE: section}).process(batch, node.wall_ns)
        assert len([each for each in outcome.alerts if each["rule_id"] == RULE]) == count
