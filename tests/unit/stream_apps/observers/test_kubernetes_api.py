# SPDX-License-Identifier: Apache-2.0
"""nsp.kubernetes-api: controllers may, curl in a pod may not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stream_apps.detect.kubernetes_api import KubernetesApi
from tests.support.batches import Node
from tests.support.learned import Learned
from tests.support.stream import observer, rules, run, whole_pipeline

if TYPE_CHECKING:
    from stream_apps.pipeline import Pipeline

RULE = "nsp.kubernetes-api"
API = "10.96.0.1"


def severities(node: Node, through: Pipeline | None = None) -> list[str]:
    return [severity for rule, severity in rules(run(node, through or whole_pipeline())) if rule == RULE]


@pytest.mark.parametrize(
    ("executable", "workload", "told"),
    [
        ("/usr/bin/curl", 1, ["MEDIUM"]), ("/dev/shm/x", 1, ["HIGH"]), ("/usr/bin/kubectl", 1, []),
        ("/manager", 1, []), ("/usr/bin/curl", 0, []),
    ],
)  # fmt: skip
def test_who_is_told_without_a_service_above(executable: str, workload: int, told: list[str]) -> None:
    node = Node()
    starter = node.service("/app/init", serving=False, workload=workload)
    node.connect(node.spawn(starter, executable), API, 443)
    assert severities(node) == told


@pytest.mark.parametrize("tool", ["/usr/bin/curl", "/usr/bin/kubectl", "/usr/bin/python3.11"])
def test_below_a_service_any_tool_is_told(tool: str) -> None:
    node = Node()
    shell = node.spawn(node.service("/usr/sbin/nginx"), "/usr/bin/dash")
    node.connect(node.spawn(shell, tool), API, 443)
    assert severities(node) == ["HIGH"]


def test_a_refused_attempt_counts() -> None:
    node = Node()
    node.refuse(node.spawn(node.service("/usr/sbin/nginx"), "/usr/bin/curl"), API, 443)
    assert severities(node) == ["HIGH"]


def test_the_address_is_learned_from_the_clusters_resolver_and_from_nobody_elses() -> None:
    for name, server, told in (
        ("kubernetes.default.svc.cluster.local", "10.96.0.10", ["MEDIUM"]),
        ("kubernetes.default.svc", "203.0.113.53", []),
        ("shop.default.svc.cluster.local", "10.96.0.10", []),
    ):
        node = Node()
        starter = node.service("/app/init", serving=False)
        node.answer(starter, name, ["10.33.0.1"], server_address=server)
        node.connect(node.spawn(starter, "/usr/bin/curl"), "10.33.0.1", 443)
        assert severities(node) == told


def test_a_service_that_was_learned_without_is_told_and_each_contact_once_a_day() -> None:
    node, through = Node(), whole_pipeline(Learned(values={f"{API}:443": False}))
    service = node.service("/usr/bin/java")
    node.connect(service, API, 443)
    assert severities(node, through) == ["MEDIUM"]
    node.connect(node.service("/usr/bin/other"), API, 443)
    assert severities(node, through) == []


def test_addresses_are_the_configurations() -> None:
    node = Node()
    node.connect(node.spawn(node.service("/usr/sbin/nginx"), "/usr/bin/curl"), "10.1.1.1", 8443)
    assert severities(node, whole_pipeline(detect={RULE: {"addresses": ["10.1.1.1"], "ports": [8443]}})) == [
        "HIGH"
    ]


def test_what_is_learned_of_the_address_is_bounded() -> None:
    node, through = Node(), whole_pipeline()
    service = node.service("/manager")
    for each in range(400):
        node.answer(service, "kubernetes.default.svc", [f"10.33.{each // 200}.{each % 200}"])
    run(node, through)
    assert len(observer(through, KubernetesApi)._learned) == 256
