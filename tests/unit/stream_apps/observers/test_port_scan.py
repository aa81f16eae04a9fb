# SPDX-License-Identifier: Apache-2.0
"""nsp.port-scan: many ports of a host, a port of many hosts, fast and slow, and what only looks like it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_apps.detect.port_scan import PortScan, _Tried
from tests.support.batches import SECOND, Node
from tests.support.benign import close, fail
from tests.support.stream import observer, rules, run, whole_pipeline

if TYPE_CHECKING:
    from stream_apps.pipeline import Pipeline

RULE = "nsp.port-scan"


def severities(node: Node, through: Pipeline | None = None) -> list[str]:
    return [severity for rule, severity in rules(run(node, through or whole_pipeline())) if rule == RULE]


@pytest.mark.parametrize(("ports", "told"), [(14, []), (15, ["MEDIUM"]), (400, ["MEDIUM"])])
def test_many_ports_of_one_host_that_fail_are_a_scan(ports: int, told: list[str]) -> None:
    node = Node()
    service = node.service("/app/search")
    for port in range(ports):
        fail(node, service, "10.2.0.9", 1 + port)
    assert severities(node) == told


@pytest.mark.parametrize(("hosts", "told"), [(24, []), (25, ["MEDIUM"]), (250, ["MEDIUM"])])
def test_one_port_of_many_hosts_that_fail_is_a_sweep(hosts: int, told: list[str]) -> None:
    node = Node()
    service = node.service("/app/search")
    for host in range(hosts):
        fail(node, service, f"10.2.0.{host}", 22)
    assert severities(node) == told


def test_the_alert_says_what_was_tried() -> None:
    node = Node()
    service = node.service("/app/search")
    for port in range(15):
        fail(node, service, "10.2.0.9", 20 + port)
    [alert] = [each for each in run(node, whole_pipeline()).alerts if each["rule_id"] == RULE]
    assert "15 ports of 10.2.0.9: 20, 21" in alert["description"]
    assert alert["remote_address"] == "10.2.0.9"
    assert alert["attack"] == ["T1046"]


def test_a_shells_loop_is_a_scan_of_its_workload_and_worse_below_a_service() -> None:
    node = Node()
    shell = node.spawn(node.service("/usr/sbin/nginx"), "/usr/bin/bash")
    for port in range(15):
        fail(node, node.spawn(shell, "/usr/bin/nc.openbsd", ["nc", "-z", "10.2.0.9"]), "10.2.0.9", 20 + port)
    assert severities(node) == ["HIGH"]


def test_what_a_profile_refuses_counts() -> None:
    node = Node()
    service = node.service("/app/search")
    for port in range(15):
        node.refuse(service, "10.2.0.9", 20 + port, reason="ADDRESS", alerted_only=False)
    assert severities(node) == ["MEDIUM"]


def test_datagrams_to_a_hundred_ports_of_a_host_are_a_scan() -> None:
    for ports, told in ((99, []), (100, ["MEDIUM"])):
        node = Node()
        service = node.service("/app/search")
        for port in range(ports):
            node.send(service, "10.2.0.9", 1 + port)
        assert severities(node) == told


def test_a_slow_scan_needs_a_longer_window() -> None:
    for window_s, told in ((300, []), (3600, ["MEDIUM"])):
        node, through = Node(), whole_pipeline(detect={RULE: {"window_s": window_s}})
        service = node.service("/app/search")
        found = []
        for port in range(20):
            fail(node, service, "10.2.0.9", 20 + port)
            node.now_ns += 60 * SECOND
            found += severities(node, through)
        assert found == told


def test_what_answered_before_is_down_and_not_looked_for() -> None:
    node = Node()
    service = node.service("/app/search")
    for host in range(60):
        close(node, service, f"10.2.0.{host}", 9100, 100, 100)
    for host in range(60):
        fail(node, service, f"10.2.0.{host}", 9100)
    assert severities(node) == []


def test_one_dead_endpoint_tried_again_and_again_and_loopback_are_no_scan() -> None:
    node = Node()
    service = node.service("/app/search")
    for each in range(200):
        fail(node, service, "10.2.0.9", 5432)
        fail(node, service, "127.0.0.1", 30_000 + each)
    assert severities(node) == []


def test_a_scan_that_goes_on_is_told_once_a_window() -> None:
    node, through = Node(), whole_pipeline(detect={"repeat_after_s": 1})
    service = node.service("/app/search")
    told = []
    for each in range(10):
        for port in range(30):
            fail(node, service, f"10.2.0.{each}", 20 + port)
        node.now_ns += 100 * SECOND
        told += severities(node, through)
    assert len(told) == 4


def test_workloads_are_counted_by_themselves_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_apps.detect.port_scan.MAX_WORKLOADS", 2)
    node, through = Node(), whole_pipeline()
    for port in range(14):
        for workload in range(2):
            fail(node, node.service("/app/job", workload=workload), "10.2.0.9", 20 + port + 20 * workload)
    assert severities(node, through) == []
    node.workloads.append({**node.workloads[1], "id": "third"})
    fail(node, node.service("/app/job", workload=2), "10.2.0.9", 99)
    assert severities(node, through) == []
    assert through.metrics()["detect", "port_scan_evicted"] == 1
    assert through.metrics()["detect", "port_scan_workloads_now"] == 2


@pytest.mark.parametrize("bound", ["MAX_REACHED", "MAX_ALL_REACHED", "MAX_WORKLOADS"])
def test_what_answered_is_bounded_and_counted(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"stream_apps.detect.port_scan.{bound}", 10)
    node, through = Node(), whole_pipeline()
    node.workloads += [{**node.workloads[1], "id": f"w{each}"} for each in range(30)]
    services = [node.service("/app/x", workload=2 + each) for each in range(30)]
    for each in range(600):
        close(node, services[each % 30], f"10.3.{each % 30}.{each // 30}", 80, 1, 1)
    run(node, through)
    workloads = observer(through, PortScan)._workloads
    figures = through.metrics()
    kept = figures["detect", "port_scan_reached_now"]
    assert kept == sum(len(each.reached) for each in workloads.values())
    assert kept + figures["detect", "port_scan_endpoints_evicted"] == 600
    assert {
        "MAX_REACHED": all(len(each.reached) <= 10 for each in workloads.values()),
        "MAX_ALL_REACHED": kept <= 10,
        "MAX_WORKLOADS": len(workloads) <= 10,
    }[bound]


Attempt = tuple[int, int, int]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(0, 20)), max_size=120))
def test_counts_agree_with_counting_again(attempts: list[Attempt]) -> None:
    tried, window, now = _Tried(), 50, 0
    first_seen: dict[tuple[str, int], int] = {}
    for host, port, pause in attempts:
        now += pause
        address = f"10.0.0.{host}"
        first_seen = {each: at for each, at in first_seen.items() if at >= now - window}
        assert tried.add(address, port, now, now - window) == ((address, port) not in first_seen)
        first_seen.setdefault((address, port), now)
        assert dict(tried.endpoints) == first_seen
        for each in range(5):
            expected = sum(known == f"10.0.0.{each}" for known, _ in first_seen)
            assert tried.ports_of[f"10.0.0.{each}"] == expected
        for each in range(7):
            assert tried.hosts_of[each] == sum(known == each for _, known in first_seen)


def test_endpoints_of_a_workload_are_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_apps.detect.port_scan.MAX_FAILED", 20)
    tried = _Tried()
    for each in range(100):
        tried.add(f"10.0.0.{each}", each, each, 0)
    assert len(tried.endpoints) == len(tried.ports_of) == len(tried.hosts_of) == 20
    assert tried.evicted == 80
