# SPDX-License-Identifier: Apache-2.0
"""nsp.lateral-movement: from a service's shell to the next pod, and to ports of administration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stream_apps.correlate.pods import PodTable
from stream_apps.pipeline import Pipeline
from tests.support.batches import Node, pod_record
from tests.support.learned import Learned
from tests.support.stream import rules, run, whole_config, whole_pipeline

if TYPE_CHECKING:
    from stream_apps.detect.baseline import Baseline

RULE = "nsp.lateral-movement"
OTHER = "10.1.9.9"


def severities(node: Node, through: Pipeline | None = None) -> list[str]:
    return [severity for rule, severity in rules(run(node, through or pipeline())) if rule == RULE]


def pipeline(baseline: Baseline | None = None) -> Pipeline:
    pods = PodTable()
    pods.put(pod_record())
    pods.put(pod_record(uid="2", name="db-0", owner_name="db", namespace="data", ips=[OTHER], containers=[]))
    pods.put(pod_record(uid="3", name="shop-x", ips=["10.1.2.4"], containers=[]))
    return Pipeline(whole_config(), pods, baseline=baseline)


def intruder(node: Node, tool: str = "/usr/bin/curl") -> int:
    return node.spawn(node.spawn(node.service("/usr/sbin/nginx"), "/usr/bin/dash"), tool)


@pytest.mark.parametrize(
    ("address", "port", "told"),
    [
        (OTHER, 8080, ["HIGH"]), ("10.1.2.4", 8080, []), ("10.1.2.3", 22, []), ("127.0.0.1", 22, []),
        ("10.5.5.5", 22, ["HIGH"]), ("10.5.5.5", 10250, ["HIGH"]), ("10.5.5.5", 2375, ["HIGH"]),
        ("10.5.5.5", 2379, ["HIGH"]), ("10.5.5.5", 445, ["HIGH"]), ("10.5.5.5", 5432, []),
        ("203.0.113.9", 22, []),
    ],
)  # fmt: skip
def test_where_an_intruder_may_not_reach(address: str, port: int, told: list[str]) -> None:
    node = Node()
    node.connect(intruder(node), address, port)
    assert severities(node) == told


def test_the_neighbour_is_named() -> None:
    node = Node()
    node.connect(intruder(node), OTHER, 8080)
    [alert] = [each for each in run(node, pipeline()).alerts if each["rule_id"] == RULE]
    assert "the pod data/db-0" in alert["description"]


def test_services_talk_to_each_other_and_scrape_the_kubelet() -> None:
    node = Node()
    service = node.service("/bin/prometheus")
    node.connect(service, OTHER, 8080)
    node.connect(service, "10.5.5.5", 10250)
    assert severities(node) == []


@pytest.mark.parametrize(("launcher", "told"), [("/usr/bin/git", []), ("/usr/bin/bash", ["MEDIUM"])])
def test_ssh_of_git_is_none_and_of_a_shell_in_a_pod_is_one(launcher: str, told: list[str]) -> None:
    node = Node()
    starter = node.spawn(node.service("/app/job", serving=False), launcher)
    node.connect(node.spawn(starter, "/usr/bin/ssh"), "10.20.0.7", 22)
    assert severities(node) == told


def test_git_below_a_services_shell_excuses_nothing() -> None:
    node = Node()
    node.connect(node.spawn(intruder(node, "/usr/bin/git"), "/usr/bin/ssh"), "10.20.0.7", 22)
    assert severities(node) == ["HIGH"]


def test_people_on_the_host_administer() -> None:
    node = Node()
    person = node.service("/usr/bin/bash", serving=False, workload=0)
    node.connect(node.spawn(person, "/usr/bin/ssh"), "10.20.0.7", 22)
    assert severities(node) == []


def test_a_service_that_was_learned_without_an_administration_port_is_told() -> None:
    for answer, told in ((False, ["MEDIUM"]), (None, []), (True, [])):
        node = Node()
        node.connect(node.service("/usr/bin/java"), "10.5.5.5", 22)
        assert severities(node, pipeline(Learned(values={"10.5.5.5:22": answer}))) == told


def test_each_destination_is_told_once_a_day() -> None:
    node, through = Node(), whole_pipeline()
    for _ in range(3):
        node.connect(intruder(node), "10.5.5.5", 22)
    assert severities(node, through) == ["HIGH"]


def test_contacts_told_are_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_apps.detect.contact.MAX_TOLD", 10)
    node, through = Node(), whole_pipeline()
    actor = intruder(node)
    for each in range(30):
        node.connect(actor, f"10.5.5.{each}", 22)
    run(node, through)
    assert through.metrics()["detect", "lateral_movement_contacts_now"] == 10
    assert through.metrics()["detect", "lateral_movement_evicted"] == 20
