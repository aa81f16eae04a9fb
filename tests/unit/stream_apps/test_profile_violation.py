# SPDX-License-Identifier: Apache-2.0
"""nsp.profile-violation and nsp.dns-trace: what is an alert, what it says, and how many there are."""

from __future__ import annotations

from typing import Any

import pytest

from stream_apps.correlate.pods import Pod, PodTable
from stream_apps.detect.dns_trace import MAX_ANSWERS
from stream_apps.detect.profile_violation import MAX_DESTINATIONS
from stream_apps.pipeline import Pipeline
from stream_apps.profiles.desk import ProfileDesk
from tests.support.batches import SECOND, Node, pod_record
from tests.support.profiles import profile, service
from tests.support.stream import config, cut, rules, run

RULE = "nsp.profile-violation"
TRACE = "nsp.dns-trace"
REASONS = [
    ("UNKNOWN_WORKLOAD", "LOW"), ("L3_PROTOCOL", "MEDIUM"), ("L4_PROTOCOL", "MEDIUM"), ("ADDRESS", "MEDIUM"),
    ("L7_PROTOCOL", "MEDIUM"), ("HTTP_REQUEST", "MEDIUM"), ("TLS_SNI", "MEDIUM"), ("OPAQUE", "MEDIUM"),
    ("RAW_SOCKET", "HIGH"),
]  # fmt: skip


def through(*profiles: dict[str, Any], **sections: Any) -> Pipeline:
    """A pipeline that knows the pod of the batches, and profiles of its namespace."""
    pods, desk = PodTable(), ProfileDesk()
    pods.put(pod_record())
    desk.pod(pod_record()["uid"], Pod.of(pod_record()), 1)
    for each in profiles:
        desk.profile(f"{each['namespace']}/{each['name']}", each, 100)
    return Pipeline(config(**sections), pods, desk)


def shop(node: Node) -> int:
    """A plain process of the pod, which no other rule minds."""
    return node.service("/usr/bin/shop", serving=False)


def refuse(
    node: Node, process: int, reason: str = "ADDRESS", address: str = "203.0.113.5", **more: Any
) -> None:
    node.refuse(process, address, 443, reason=reason, **{"generation": 7, "alerted_only": False, **more})


@pytest.mark.parametrize(("reason", "severity"), REASONS)
def test_each_reason_is_an_alert_of_its_severity_and_cuts_nobody(reason: str, severity: str) -> None:
    node = Node()
    refuse(node, shop(node), reason)
    outcome = run(node, through())
    assert rules(outcome) == [(RULE, severity)]
    assert not cut(outcome)


@pytest.mark.parametrize("reason", ["QUARANTINED_PROCESS", "QUARANTINED_WORKLOAD", "BLOCKED_DESTINATION"])
def test_a_refusal_that_no_profile_made_is_none(reason: str) -> None:
    node = Node()
    refuse(node, shop(node), reason)
    assert rules(run(node, through())) == []


def test_the_alert_says_who_wanted_what_and_which_profile_spoke_against_it() -> None:
    node = Node()
    process = shop(node)
    node.answer(process, "evil.example", ["203.0.113.5"])
    refuse(node, process)
    [alert] = run(node, through(profile("web", namespace="shop", generation=7))).alerts
    for word in (
        "shop (",
        "connect to 203.0.113.5:443/tcp",
        "evil.example",
        "shop/web",
        "was refused",
    ):
        assert word in alert["description"]
    assert (alert["remote_address"], alert["remote_port"]) == ("203.0.113.5", 443)
    assert alert["dns_name"] == "evil.example"
    assert alert["workload"]["namespace"] == "shop"
    assert alert["attack"] == ["T1071"]


def test_a_profile_of_another_generation_is_not_named() -> None:
    node = Node()
    refuse(node, shop(node))
    [alert] = run(node, through(profile("web", namespace="shop", generation=8))).alerts
    assert "shop/web" not in alert["description"]
    assert "generation 7" in alert["description"]


def test_what_is_only_alerted_is_said_to_have_passed() -> None:
    node = Node()
    refuse(node, shop(node), alerted_only=True)
    [alert] = run(node, through()).alerts
    assert "would be refused" in alert["description"]


@pytest.mark.parametrize("verdict", ["REFUSED", "ALERTED"])
def test_a_question_that_is_not_allowed_is_an_alert_with_its_name(verdict: str) -> None:
    node = Node()
    process = shop(node)
    node.ask(process, "allowed.example")
    question = {
        "cookie": 1, "protocol": 17, "server_address": "10.96.0.10", "transaction_id": 7, "question_type": 1,
    }  # fmt: skip
    node.add(
        "DnsQuestion", process, **question, name="evil.example", verdict=verdict, reason="DNS_NAME",
        generation=7,
    )  # fmt: skip
    [alert] = run(node, through()).alerts
    assert alert["dns_name"] == "evil.example"
    assert alert["attack"] == ["T1071.004"]


def payload(kind: str, node: Node, process: int, **more: Any) -> None:
    said: dict[str, Any] = {"server_name": "evil.example"}
    if kind == "HttpRequest":
        said = {"method": "POST", "uri": "/{where}", "uri_bytes": 8, "host": "evil.example"}
    flow = {
        "cookie": 1, "inbound": False, "local_address": "10.1.2.3", "local_port": 40000,
        "remote_address": "203.0.113.5", "remote_port": 443, "verdict": "REFUSED", "generation": 7,
        "notes": [],
    }  # fmt: skip
    node.add(kind, process, **{**flow, **said, **more})


@pytest.mark.parametrize(
    ("kind", "reason", "words"),
    [
        ("HttpRequest", "HTTP_REQUEST", "POST /(where) (Host evil.example)"),
        ("TlsHello", "TLS_SNI", "evil.example"),
    ],
)
def test_a_request_and_a_hello_that_are_not_allowed_say_what_was_said(
    kind: str, reason: str, words: str
) -> None:
    node = Node()
    process = shop(node)
    payload(kind, node, process, verdict="ALLOWED", reason=None)
    refuse(node, process, reason, hook="PACKET_OUT")
    payload(kind, node, process, reason=reason)
    [alert] = run(node, through()).alerts
    assert words in alert["description"]
    assert "to 203.0.113.5:443/tcp" in alert["description"]
    assert alert["attack"] == ["T1071.001"]


def test_a_request_from_outside_is_low_and_one_that_only_alerts_passed() -> None:
    node = Node()
    payload("HttpRequest", node, shop(node), reason="HTTP_REQUEST", inbound=True, verdict="ALERTED")
    outcome = run(node, through())
    assert rules(outcome) == [(RULE, "LOW")]
    assert "would be refused" in outcome.alerts[0]["description"]


def test_what_somebody_outside_tried_is_low() -> None:
    node = Node()
    refuse(node, shop(node), hook="PACKET_IN", local_address="10.1.2.3", local_port=8080)
    outcome = run(node, through())
    assert rules(outcome) == [(RULE, "LOW")]
    assert outcome.alerts[0]["attack"] == ["T1046"]


def test_a_flood_to_one_destination_is_one_alert_with_its_number() -> None:
    node, pipeline = Node(), through()
    process = shop(node)
    for _ in range(40):
        refuse(node, process)
    [alert] = run(node, pipeline).alerts
    assert "40 times" in alert["description"]
    for _ in range(3):
        refuse(node, process)
        assert run(node, pipeline).alerts == []
    node.now_ns += 601 * SECOND
    refuse(node, process)
    [again] = run(node, pipeline).alerts
    assert "3 times more since the alert before" in again["description"]


def test_another_destination_and_another_reason_are_alerts_of_their_own() -> None:
    node = Node()
    process = shop(node)
    refuse(node, process)
    refuse(node, process, address="203.0.113.6")
    refuse(node, process, "TLS_SNI")
    assert len(run(node, through()).alerts) == 3


def test_a_scan_is_no_more_alerts_than_a_person_can_read() -> None:
    node, pipeline = Node(), through()
    process = shop(node)
    alerts = []
    for number in range(5 * MAX_DESTINATIONS):
        refuse(node, process, address=f"203.0.113.{number}")
        if number % 10 == 9:
            alerts += run(node, pipeline).alerts
    assert len(alerts) == MAX_DESTINATIONS + 1


def test_an_exclusion_by_destination_holds() -> None:
    item = {"exclusions": [{"reason": "known", "destinations": ["203.0.113.0/24"]}]}
    node = Node()
    process = shop(node)
    refuse(node, process)
    refuse(node, process, address="198.51.100.1")
    [alert] = run(node, through(detect={RULE: item})).alerts
    assert alert["remote_address"] == "198.51.100.1"


def test_an_intruder_whom_a_profile_stops_is_an_intruder_all_the_same() -> None:
    node = Node()
    web = node.service("/usr/sbin/nginx")
    shell = node.exec(node.fork(web), "/bin/sh")
    curl = node.exec(node.fork(shell), "/usr/bin/curl")
    refuse(node, curl)
    outcome = run(node, through())
    assert {rule for rule, _ in rules(outcome)} == {RULE, "nsp.rce-egress"}
    assert cut(outcome)


def test_resolutions_are_told_of_the_workloads_whose_profile_asks() -> None:
    node = Node()
    process = shop(node)
    node.answer(process, "a.example", ["203.0.113.5", "2001:db8::5"])
    node.answer(process, "a.example", ["203.0.113.5"])
    host = node.service("/usr/bin/other", workload=0, serving=False)
    node.answer(host, "b.example", ["203.0.113.6"])
    outcome = run(node, through(profile("web", namespace="shop", trace_dns=True)))
    assert rules(outcome) == [(TRACE, "INFORMATIONAL")] * 2
    assert "resolved a.example" in outcome.alerts[0]["description"]
    assert "2001:db8::5" in outcome.alerts[0]["description"]
    assert outcome.alerts[0]["dns_name"] == "a.example"


def test_nobody_is_traced_unless_a_profile_that_selects_it_asks() -> None:
    node = Node()
    node.answer(shop(node), "a.example", ["203.0.113.5"])
    silent = profile("web", namespace="shop")
    elsewhere = profile("web", trace_dns=True)
    host = profile("x", scope="NODE", namespace="host", services=[service("x.service")], trace_dns=True)
    assert rules(run(node, through(silent, elsewhere, host))) == []


def test_a_service_of_the_host_is_traced_by_its_unit() -> None:
    node = Node()
    node.workloads.append({**node.workloads[0], "id": "host/worker-1/x.service", "unit": "x.service"})
    node.answer(node.service("/usr/bin/x", workload=2, serving=False), "a.example", [])
    record = profile("x", scope="NODE", namespace="host", services=[service("x.service")], trace_dns=True)
    assert rules(run(node, through(record))) == [(TRACE, "INFORMATIONAL")]


def test_tracing_is_bounded_and_what_is_left_out_is_counted() -> None:
    node, pipeline = Node(), through(profile("web", namespace="shop", trace_dns=True))
    process = shop(node)
    for _ in range(MAX_ANSWERS + 5):
        node.answer(process, "a.example", ["203.0.113.5"])
    assert len(run(node, pipeline).alerts) == MAX_ANSWERS
    assert pipeline.metrics()["profiles", "dns_trace_limited"] == 5
    node.now_ns += 11 * SECOND
    node.answer(process, "a.example", ["203.0.113.5"])
    assert len(run(node, pipeline).alerts) == 1
