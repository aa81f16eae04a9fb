# SPDX-License-Identifier: Apache-2.0
"""nsp.mining: names, ports and command lines of pools and miners."""

from __future__ import annotations

import pytest

from tests.support.batches import Node
from tests.support.stream import rules, run, whole_pipeline

RULE = "nsp.mining"


def severities(node: Node) -> list[str]:
    return [severity for rule, severity in rules(run(node, whole_pipeline())) if rule == RULE]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("xmr-eu1.nanopool.org", ["HIGH"]), ("nanopool.org", ["HIGH"]), ("notnanopool.org", []),
        ("nanopool.org.shop.example", []),
    ],
)  # fmt: skip
def test_a_pools_name_is_told_and_what_only_looks_like_it_is_not(name: str, told: list[str]) -> None:
    node = Node()
    node.ask(node.service("/app/search"), name)
    assert severities(node) == told


def test_a_pools_port_is_a_guess_outside_and_nothing_inside() -> None:
    for address, told in (("203.0.113.7", ["MEDIUM"]), ("10.1.1.1", []), ("fd00::1", [])):
        node = Node()
        node.connect(node.service("/app/search"), address, 3333)
        assert severities(node) == told


def test_a_pools_port_with_its_name_is_no_guess() -> None:
    node = Node()
    service = node.service("/app/search")
    node.answer(service, "pool.supportxmr.com", ["203.0.113.7"])
    node.connect(service, "203.0.113.7", 3333)
    [alert] = [each for each in run(node, whole_pipeline()).alerts if each["rule_id"] == RULE]
    assert (alert["severity"], alert["dns_name"]) == ("HIGH", "pool.supportxmr.com")


@pytest.mark.parametrize(
    ("executable", "argv", "told"),
    [
        ("/tmp/.x/kworker", ["kworker", "-o", "stratum+tcp://203.0.113.7:443", "-u", "4AB"], ["HIGH"]),
        ("/usr/bin/xmrig", ["xmrig"], ["HIGH"]),
        ("/opt/m", ["m", "--algo=rx/0"], ["HIGH"]),
        ("/usr/bin/python3", ["python3", "train.py", "--algorithm", "random-forest"], []),
        ("/usr/bin/ls", ["ls", "-a", "-l"], []),
    ],
)
def test_a_miners_command_line_is_told(executable: str, argv: list[str], told: list[str]) -> None:
    node = Node()
    node.spawn(node.service("/app/search"), executable, argv)
    assert severities(node) == told


def test_ports_and_pools_are_the_configurations() -> None:
    node = Node()
    service = node.service("/app/search")
    node.connect(service, "203.0.113.7", 3333)
    node.ask(service, "pool.own.example")
    section = {RULE: {"ports": [9999], "pools": ["own.example"]}}
    [alert] = whole_pipeline(detect=section).process(node.batch(), node.wall_ns).alerts
    assert [each["kind"] for each in alert["evidence"]] == ["DnsQuestion"]
