# SPDX-License-Identifier: Apache-2.0
"""What all observers share: configuration, errors that stay theirs, bounds, networks."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_apps.config.document import StreamConfig, json_schema
from stream_apps.detect.bounded import Bounded
from stream_apps.detect.networks import NOT_PUBLIC, Networks
from stream_apps.detect.observers import OBSERVER_IDS, build_observers
from stream_apps.detect.observing import Observing
from stream_apps.detect.sensor_silence import RULE as QUIET
from stream_apps.errors import ConfigError
from tests.support.batches import Node
from tests.support.benign import fail
from tests.support.stream import rules, run, whole_config, whole_pipeline

ROOT = Path(__file__).parents[4]


def test_every_observer_has_a_place_in_the_configuration() -> None:
    names: dict[str, Any] = json_schema()["$defs"]["Detect"]["properties"]
    assert set(OBSERVER_IDS) < set(names)
    assert [each.rule.id for each in build_observers(StreamConfig().detect)] == list(OBSERVER_IDS)


def test_an_observer_that_fails_is_reported_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_apps.detect.mining.Mining._looks_up", lambda *_: 1 / 0)
    node = Node()
    tool = node.spawn(node.service("/usr/sbin/nginx"), "/usr/bin/curl")
    node.ask(tool, "metadata.google.internal")
    outcome = whole_pipeline().process(node.batch(), node.wall_ns)
    assert {rule for rule, _ in rules(outcome)} == {"nsp.rce-egress", "nsp.metadata-service"}
    [error] = outcome.errors
    assert error.place.startswith("nsp.mining nsp.DnsQuestion at ")


def test_an_observer_that_cannot_begin_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_apps.detect.port_scan.PortScan.begin", lambda *_: 1 / 0)
    node = Node()
    tool = node.spawn(node.service("/usr/sbin/nginx"), "/usr/bin/curl")
    node.connect(tool, "169.254.169.254", 80)
    outcome = whole_pipeline().process(node.batch(), node.wall_ns)
    assert "nsp.metadata-service" in [rule for rule, _ in rules(outcome)]
    assert outcome.errors[0].place.startswith("nsp.port-scan ")


def test_an_exclusion_by_name_of_any_rule_needs_resolvers_to_trust() -> None:
    for rule in ("nsp.beacon", "nsp.dns-tunnel"):
        with pytest.raises(ConfigError, match="trusted_resolvers"):
            whole_config(detect={rule: {"exclusions": [{"reason": "x", "dns_names": ["a.example"]}]}})


def test_the_same_input_gives_the_same_alerts() -> None:
    node = Node()
    tool = node.spawn(node.service("/usr/sbin/nginx"), "/usr/bin/curl")
    node.connect(tool, "169.254.169.254", 80)
    batch = node.batch()
    first, again = (whole_pipeline().process(batch, node.wall_ns).alerts for _ in range(2))
    assert first
    assert [each["id"] for each in first] == [each["id"] for each in again]


def test_what_no_process_did_is_one_alert_and_not_one_each_time() -> None:
    node, through = Node(), whole_pipeline()
    for _ in range(5):
        node.ask(0, "pool.supportxmr.com")
    assert [rule for rule, _ in rules(run(node, through))] == ["nsp.mining"]
    node.ask(0, "pool.supportxmr.com")
    assert run(node, through).alerts == []


def test_what_was_read_back_after_a_restart_gives_the_alert_that_would_have_been() -> None:
    node = Node()
    service = node.service("/app/search")
    batches = []
    for each in range(30):
        fail(node, service, "10.2.0.9", 20 + each)
        batches.append(node.batch())
    whole = whole_pipeline()
    told = [alert for batch in batches for alert in whole.process(batch, 0).alerts]
    again = whole_pipeline()
    for batch in batches[:10]:
        assert again.process(batch, 0, replaying=True).alerts == []
    after = [alert for batch in batches[10:] for alert in again.process(batch, 0).alerts]
    assert [each["id"] for each in told] == [each["id"] for each in after] != []


@pytest.mark.parametrize("rule", [*OBSERVER_IDS, "nsp.sensor-silence"])
def test_every_rule_says_what_it_is_and_has_its_paragraph(rule: str) -> None:
    made = {each.rule.id: each.rule for each in build_observers(StreamConfig().detect)} | {QUIET.id: QUIET}
    assert made[rule].title
    assert all(re.fullmatch(r"T\d{4}(\.\d{3})?", each) for each in made[rule].attack)
    text = (ROOT / "docs" / "detections-stateful.md").read_text()
    [paragraph] = re.findall(rf"^## {re.escape(rule)}: (.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    for part in (*made[rule].attack, "**Means.**", "**False positives.**", "**What to do.**"):
        assert part in paragraph


def test_figures_are_named_after_their_rule() -> None:
    assert all(stage == "detect" for stage, _ in Observing(build_observers(StreamConfig().detect)).metrics())


@given(st.lists(st.integers(0, 30), max_size=200), st.integers(1, 10))
def test_memory_is_bounded_and_what_is_forgotten_is_counted(keys: list[int], most: int) -> None:
    table: Bounded[int, list[int]] = Bounded(most, list)
    made = 0
    for key in keys:
        made += key not in table
        table.at(key).append(key)
        assert len(table) <= most
        assert key in table
    assert made - table.evicted == len(table)


def test_what_is_used_is_kept() -> None:
    table: Bounded[int, list[int]] = Bounded(2, list)
    table.at(1)
    table.at(2)
    table.at(1)
    table.at(3)
    assert (1 in table, 2 in table, 3 in table) == (True, False, True)


@given(st.ip_addresses())
def test_networks_agree_with_the_standard_library(address: Any) -> None:
    networks = Networks(NOT_PUBLIC)
    reference = any(
        ip_address(address) in ip_network(each)
        for each in NOT_PUBLIC
        if ip_network(each).version == address.version
    )
    assert (str(address) in networks) == reference


def test_what_is_no_address_is_in_no_network() -> None:
    assert "" not in Networks(NOT_PUBLIC)
    assert "10.1.2" not in Networks(NOT_PUBLIC)
    assert "fe80::1%eth0" in Networks(NOT_PUBLIC)
