# SPDX-License-Identifier: Apache-2.0
"""nsp.unresolved-address: which addresses need a name, and what is learned instead of told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stream_apps.detect.unresolved_address import UnresolvedAddress
from tests.support.batches import SECOND, Node
from tests.support.benign import host_service
from tests.support.stream import observer, rules, run, whole_pipeline

if TYPE_CHECKING:
    from stream_apps.pipeline import Pipeline

RULE = "nsp.unresolved-address"
EVIL = "203.0.113.9"


def severities(node: Node, through: Pipeline | None = None) -> list[str]:
    return [severity for rule, severity in rules(run(node, through or whole_pipeline())) if rule == RULE]


def program(node: Node, executable: str = "/app/job") -> int:
    """A program that begins before our eyes, which no service started."""
    return node.spawn(node.service("/app/init", serving=False), executable)


@pytest.mark.parametrize(
    ("executable", "severity"), [("/app/job", "LOW"), ("/usr/bin/wget", "MEDIUM"), ("/tmp/job", "HIGH")]
)
def test_an_address_that_nobody_named_is_told_by_who_uses_it(executable: str, severity: str) -> None:
    node = Node()
    node.connect(program(node, executable), EVIL, 443)
    assert severities(node) == [severity]


def test_below_a_service_by_way_of_a_shell_it_is_high() -> None:
    node = Node()
    shell = node.spawn(node.service("/usr/sbin/nginx"), "/usr/bin/dash")
    node.connect(shell, EVIL, 443)
    assert severities(node) == ["HIGH"]


def test_an_address_that_was_answered_is_known_long_after_its_name_has_ended() -> None:
    node, through = Node(), whole_pipeline()
    job = program(node)
    node.answer(job, "partner.example", [EVIL, "2001:db8::9"], ttl_s=30)
    node.connect(job, EVIL, 443)
    node.now_ns += 86_400 * SECOND
    node.connect(job, EVIL, 443)
    node.connect(job, "2001:db8::9", 443)
    assert severities(node, through) == []
    node.connect(job, "203.0.113.10", 443)
    assert severities(node, through) == ["LOW"]


def test_another_workloads_answer_names_nothing_but_hosts_services_share_a_resolver() -> None:
    node, through = Node(), whole_pipeline()
    program(node)
    resolver = host_service(node, "/usr/lib/systemd/systemd-resolved", "systemd-resolved.service")
    node.answer(resolver, "partner.example", [EVIL])
    agent = node.spawn(host_service(node, "/usr/bin/init", "agent.service"), "/usr/bin/agent")
    node.connect(agent, EVIL, 443)
    assert severities(node, through) == []
    node.connect(program(node), EVIL, 443)
    assert severities(node, through) == ["LOW"]


@pytest.mark.parametrize(
    "address", ["10.8.0.1", "192.168.3.4", "100.64.1.1", "fd00::9", "127.0.0.1", "224.0.0.251"]
)
def test_private_addresses_need_no_name(address: str) -> None:
    node = Node()
    node.connect(program(node), address, 443)
    assert severities(node) == []


def test_private_networks_are_the_configurations() -> None:
    node = Node()
    node.connect(program(node), "10.8.0.1", 443)
    through = whole_pipeline(detect={RULE: {"ignored_networks": ["192.168.0.0/16"]}})
    assert severities(node, through) == ["LOW"]


def test_resolvers_and_time_servers_are_configured_by_address() -> None:
    node = Node()
    for port in (53, 123, 853):
        node.send(program(node), EVIL, port)
    assert severities(node) == []


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        (f"http://{EVIL}:8080/x", []), (EVIL, []), ("[2001:db8::9]:443", ["LOW"]), (f"{EVIL}1", ["LOW"]),
        (f"1{EVIL}", ["LOW"]),
    ],
)  # fmt: skip
def test_an_address_on_a_command_line_was_given_by_somebody(argument: str, told: list[str]) -> None:
    node = Node()
    script = node.spawn(program(node), "/app/run", ["run", argument])
    node.connect(node.spawn(script, "/app/child"), EVIL, 8080)
    assert severities(node) == told


def test_what_was_there_before_may_have_resolved_before_and_is_learned() -> None:
    node, through = Node(), whole_pipeline()
    service = node.service("/usr/bin/java")
    node.connect(service, EVIL, 443)
    assert severities(node, through) == []
    node.now_ns += 7200 * SECOND
    node.connect(service, EVIL, 443)
    assert severities(node, through) == []
    node.connect(service, "203.0.113.10", 443)
    assert severities(node, through) == ["LOW"]


def test_a_sensor_that_starts_anew_has_missed_answers() -> None:
    node, through = Node(), whole_pipeline()
    job = program(node)
    run(node, through)
    node.notice("STARTED")
    node.connect(job, EVIL, 443)
    assert severities(node, through) == []


def test_an_answer_that_hides_addresses_blinds_for_a_while() -> None:
    node, through = Node(), whole_pipeline()
    job = program(node)
    node.answer(job, "s3.example", ["203.0.113.1"], incomplete=True)
    node.connect(job, EVIL, 443)
    assert severities(node, through) == []
    node.now_ns += 600 * SECOND
    node.connect(job, EVIL, 443)
    assert severities(node, through) == ["LOW"]


def test_finding_out_ones_own_address_is_no_contact() -> None:
    node = Node()
    node.connect(program(node), "8.8.8.8", 80, protocol=17)
    assert severities(node) == []
    node.connect(program(node, "/dev/shm/x"), "8.8.8.8", 80, protocol=17)
    assert severities(node) == ["HIGH"]


def test_an_address_is_told_once_a_workload_and_a_day() -> None:
    node, through = Node(), whole_pipeline()
    starter = node.service("/app/init", serving=False)
    counts = []
    for hour in (0, 1, 30):
        node.now_ns += hour * 3600 * SECOND
        for _ in range(3):
            node.connect(node.spawn(starter, "/app/job"), EVIL, 443)
        counts.append(len(severities(node, through)))
    assert counts == [1, 0, 1]


@pytest.mark.parametrize("bound", ["MAX_ADDRESSES", "MAX_ALL_ADDRESSES", "MAX_WORKLOADS"])
def test_memory_is_bounded_and_counted(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"stream_apps.detect.unresolved_address.{bound}", 10)
    node, through = Node(), whole_pipeline()
    node.workloads += [{**node.workloads[1], "id": f"w{each}"} for each in range(30)]
    jobs = [node.service("/app/job", workload=2 + each) for each in range(30)]
    for each in range(600):
        node.answer(jobs[each % 30], "many.example", [f"203.0.{each % 30}.{each // 30}"])
    run(node, through)
    figures = through.metrics()
    kept = figures["detect", "unresolved_address_addresses_now"]
    memories = observer(through, UnresolvedAddress)._memories
    assert kept == sum(len(each.known) for each in memories.values())
    assert kept + figures["detect", "unresolved_address_addresses_evicted"] == 600
    assert {
        "MAX_ADDRESSES": all(len(each.known) <= 10 for each in memories.values()),
        "MAX_ALL_ADDRESSES": kept <= 10,
        "MAX_WORKLOADS": len(memories) <= 10,
    }[bound]
