# SPDX-License-Identifier: Apache-2.0
"""Sigma rules in the pipeline: from events to alerts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from schemas.codec import decode_as, encode
from stream_apps.correlate.pods import PodTable
from stream_apps.pipeline import Pipeline
from stream_apps.sigma.book import RuleBook
from stream_apps.sigma.index import RuleIndex
from stream_apps.sigma.ruleset import RuleSet
from stream_apps.sigma.tree import OtherLeaf
from tests.support.batches import Node, pod_record
from tests.support.sigma import AROUND, document, identity, rule_id
from tests.support.stream import config

if TYPE_CHECKING:
    from pathlib import Path

    from stream_apps.pipeline import Outcome

NMAP = document(
    {
        "tool": {"Image|endswith": "/nmap", "CommandLine|contains": [" -sS", " -sV"]},
        "filter": {"User": "www-data"},
        "condition": "tool and not filter",
    },
    id=identity("nmap"), name="nmap", title="Nmap runs", level="high", tags=["attack.t1046"],
)  # fmt: skip
TELNET = document(
    {"out": {"DestinationPort": 23, "Initiated": "true"}, "condition": "out"}, "network_connection",
    id=identity("telnet"), name="telnet", title="Telnet", level="medium",
)  # fmt: skip
ODD_NAME = document(
    {"odd": {"QueryName|endswith": ".onion"}, "condition": "odd"}, "dns_query",
    id=identity("onion"), name="onion", title="Onion", level="critical",
)  # fmt: skip
MANY = {
    "title": "Many telnets", "id": identity("many"), "level": "high",
    "correlation": {
        "type": "value_count", "rules": ["telnet"], "group-by": ["Image"], "timespan": "1m",
        "condition": {"gte": 3, "field": "DestinationIp"},
    },
}  # fmt: skip


def through(*documents: dict[str, Any], **sigma: Any) -> Pipeline:
    pods = PodTable()
    pods.put(pod_record())
    return Pipeline(config(detect={"sigma": sigma}), pods, rules=book(*documents))


def book(*documents: dict[str, Any]) -> RuleBook:
    found = RuleBook(AROUND)
    found.base([(f"{number}.yml", yaml.safe_dump(each)) for number, each in enumerate(documents)])
    assert all(each.status == "loaded" for each in found.verdicts), found.verdicts
    return found


def run(node: Node, pipeline: Pipeline, **more: Any) -> Outcome:
    outcome = pipeline.process(node.batch(), node.wall_ns, **more)
    assert outcome.errors == []
    return outcome


def scanned(uid: int = 1000) -> Node:
    node = Node()
    shell = node.spawn(node.service("/usr/sbin/sshd", serving=False), "/bin/bash")
    node.spawn(shell, "/usr/bin/nmap", ["nmap", "-sS", "10.0.0.0/8"], uid=uid)
    return node


def test_a_match_is_an_alert_with_its_rule_and_what_matched() -> None:
    (alert,) = run(scanned(), through(NMAP)).alerts
    assert alert["rule_id"] == f"sigma.{identity('nmap')}"
    assert (alert["title"], alert["severity"], alert["attack"]) == ("Nmap runs", "HIGH", ["T1046"])
    assert alert["lineage"][0]["executable"] == "/usr/bin/nmap"
    (evidence,) = alert["evidence"]
    assert evidence["kind"] == "ProcessExec"
    assert evidence["summary"] == "Image=/usr/bin/nmap; CommandLine=nmap -sS 10.0.0.0/8"
    assert "nmap" in alert["description"]
    assert "matches the Sigma rule Nmap runs" in alert["description"]
    assert alert["response"]["decision"] == "none"
    assert decode_as("Alert", encode("Alert", alert)) == alert


def test_what_the_rule_filters_is_none() -> None:
    assert run(scanned(uid=33), through(NMAP)).alerts == []


def test_a_connection_and_a_question_are_alerts_with_destination_and_name() -> None:
    node = Node()
    client = node.service("/usr/bin/client", serving=False)
    node.answer(client, "old.example", ["192.0.2.1"])
    node.connect(client, "192.0.2.1", 23)
    node.ask(client, "abc.onion")
    telnet, onion = run(node, through(TELNET, ODD_NAME)).alerts
    assert (telnet["remote_address"], telnet["remote_port"], telnet["dns_name"]) == (
        "192.0.2.1",
        23,
        "old.example",
    )
    assert telnet["evidence"][0]["summary"] == "DestinationPort=23; Initiated=true"
    assert (onion["dns_name"], onion["severity"], onion["remote_address"]) == ("abc.onion", "CRITICAL", None)


def test_an_accepted_connection_goes_nowhere() -> None:
    node = Node()
    node.add(
        "SocketAccept", node.service("/usr/sbin/telnetd", serving=False), cookie=1, local_address="10.1.2.3",
        local_port=23, remote_address="10.9.9.9", remote_port=40000,
    )  # fmt: skip
    incoming = document(
        {"s": {"DestinationPort": 23, "Initiated": "false"}, "condition": "s"}, "network_connection"
    )
    (alert,) = run(node, through(incoming)).alerts
    assert alert["remote_address"] is None


def test_one_process_is_one_alert_a_rule_until_the_time_is_over() -> None:
    node, pipeline = Node(), through(TELNET)
    client = node.service("/usr/bin/client", serving=False)
    for _ in range(3):
        node.connect(client, "192.0.2.1", 23)
    assert len(run(node, pipeline).alerts) == 1
    node.connect(client, "192.0.2.1", 23)
    assert run(node, pipeline).alerts == []
    node.now_ns += 601 * 1_000_000_000
    node.connect(client, "192.0.2.1", 23)
    assert len(run(node, pipeline).alerts) == 1


def test_the_same_evidence_gives_the_same_id_live_and_replayed() -> None:
    node = scanned()
    batch = node.batch()
    ids = [through(NMAP).process(batch, node.wall_ns + later).alerts[0]["id"] for later in (0, 5)]
    assert ids[0] == ids[1]
    assert through(NMAP).process(batch, node.wall_ns, replaying=True).alerts == []


def test_a_correlation_alerts_and_its_rules_are_silent() -> None:
    node, pipeline = Node(), through(TELNET, MANY)
    client = node.service("/usr/bin/client", serving=False)
    for last in (1, 1, 2):
        node.connect(client, f"192.0.2.{last}", 23)
    assert run(node, pipeline).alerts == []
    node.connect(client, "192.0.2.3", 23)
    (alert,) = run(node, pipeline).alerts
    assert (alert["rule_id"], alert["severity"], alert["title"]) == (rule_id("many"), "HIGH", "Many telnets")
    assert "completed the Sigma correlation Many telnets within 60 s" in alert["description"]


def test_reading_back_fills_a_correlation_again() -> None:
    node, pipeline = Node(), through(TELNET, MANY)
    client = node.service("/usr/bin/client", serving=False)
    for last in (1, 2):
        node.connect(client, f"192.0.2.{last}", 23)
    run(node, pipeline, replaying=True)
    node.connect(client, "192.0.2.3", 23)
    assert len(run(node, pipeline).alerts) == 1


@pytest.mark.parametrize(
    ("exclusion", "alerts"),
    [
        ({"rules": ["sigma.*"], "actors": ["/usr/bin/nmap"]}, 0),
        ({"rules": [rule_id("nmap")], "namespaces": ["shop"]}, 0),
        ({"rules": [rule_id("telnet")], "actors": ["/usr/bin/nmap"]}, 1),
        ({"rules": ["sigma.*"], "namespaces": ["other"]}, 1),
    ],
)
def test_exclusions_are_by_rule(exclusion: dict[str, Any], alerts: int) -> None:
    pipeline = through(NMAP, exclusions=[{"reason": "our scanner", **exclusion}])
    assert len(run(scanned(), pipeline).alerts) == alerts
    assert pipeline.metrics()["detect", "sigma_matches"] == 1


@pytest.mark.parametrize(("network", "alerts"), [("192.0.2.0/24", 0), ("198.51.100.0/24", 1)])
def test_exclusions_by_destination(network: str, alerts: int) -> None:
    node = Node()
    node.connect(node.service("/usr/bin/client", serving=False), "192.0.2.1", 23)
    excluded = {"reason": "old switches", "rules": ["sigma.*"], "destinations": [network]}
    assert len(run(node, through(TELNET, exclusions=[excluded])).alerts) == alerts


def test_severity_is_capped() -> None:
    (alert,) = run(scanned(), through(NMAP, severity="LOW")).alerts
    assert alert["severity"] == "LOW"


def test_rules_that_change_count_from_the_next_batch_on_and_correlations_go_on() -> None:
    node, rules = Node(), book(TELNET, MANY)
    pipeline = Pipeline(config(), rules=rules)
    client = node.service("/usr/bin/client", serving=False)
    for last in (1, 2):
        node.connect(client, f"192.0.2.{last}", 23)
    run(node, pipeline)
    version = rules.version
    rules.publish("nmap", yaml.safe_dump(NMAP).encode())
    assert rules.version == version
    assert rules.settle()
    assert rules.version != version
    node.connect(client, "192.0.2.3", 23)
    node.spawn(client, "/usr/bin/nmap", ["nmap", "-sV"], uid=1000)
    assert [each["title"] for each in run(node, pipeline).alerts] == ["Many telnets", "Nmap runs"]


def test_a_rule_that_raises_costs_only_itself() -> None:
    def fails(*_: Any) -> bool:
        raise ValueError("broken")

    rules = book(NMAP)
    good = rules.rules.rules[0]
    bad = replace(good, condition=OtherLeaf(0, fails), rule=replace(good.rule, id="bad"))
    rules.rules = RuleSet([bad, good])
    pipeline = Pipeline(config(), rules=rules)
    assert len(run(scanned(), pipeline).alerts) == 1
    # The shell and nmap.
    assert pipeline.metrics()["detect", "sigma_rule_errors"] == 2
    assert isinstance(rules.rules.indexes["nsp.ProcessExec"], RuleIndex)


def test_nothing_is_judged_without_rules_or_where_it_is_switched_off(tmp_path: Path) -> None:
    (tmp_path / "nmap.yml").write_text(yaml.safe_dump(NMAP))
    section = {"directories": [str(tmp_path)], "users": {"33": "www-data"}}
    assert run(scanned(), Pipeline(config())).alerts == []
    on = Pipeline(config(detect={"sigma": section}))
    assert len(run(scanned(), on).alerts) == 1
    off = Pipeline(config(detect={"sigma": {**section, "enabled": False}}))
    assert run(scanned(), off).alerts == []


def test_figures() -> None:
    pipeline = through(NMAP, TELNET, MANY)
    run(scanned(), pipeline)
    figures = pipeline.metrics()
    assert figures["detect", "sigma_rules_now"] == 3
    assert figures["detect", "sigma_matches"] == 1
    assert figures["detect", "sigma_rules_unusable_now"] == 0
