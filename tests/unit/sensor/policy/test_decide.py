# SPDX-License-Identifier: Apache-2.0
"""The decision of the compiled rules against the rules as they are written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.addresses import to_mapped
from sensor.policy import layout
from sensor.policy.decide import Verdict, decide, decide_bind
from sensor.policy.layers import Flow, RuleTries
from sensor.policy.payloads import Payload
from sensor.policy.policy import Policy, Selection, union_of, unknown_policy
from sensor.policy.profile import CompiledProfile, Program, compile_profile
from tests.support.flows import any_passes, flows, passes
from tests.support.profiles import TCP, UDP, application, network, networks, process, profile, rules

NOW = 1000


def compiled(*records: dict[str, Any]) -> tuple[Policy, dict[bytes, RuleTries]]:
    profiles: list[CompiledProfile] = [compile_profile(record) for record in records]
    policy = union_of([Selection(each) for each in profiles], NOW)
    assert policy is not None
    contents = policy.rule_sets()
    tries = {each.content: RuleTries(each) for one in profiles for each in one.rule_sets(contents)}
    return policy, tries


def verdict(flow: Flow, *records: dict[str, Any], program: Program | None = None) -> Verdict:
    policy, tries = compiled(*records)
    return decide(policy, flow, tries, program)


@given(networks(), flows())
def test_compiled_rules_decide_as_they_are_written(given_rules: dict[str, Any], flow: Flow) -> None:
    allowed = verdict(flow, profile(default=given_rules)).outcome == "allowed"
    assert allowed == passes(given_rules, flow)


@given(st.lists(networks(), min_size=1, max_size=3), flows())
def test_a_union_lets_pass_what_one_of_its_profiles_lets_pass(
    several: list[dict[str, Any]], flow: Flow
) -> None:
    records = [profile(f"p{number}", default=each) for number, each in enumerate(several)]
    assert (verdict(flow, *records).outcome == "allowed") == any_passes(several, flow)


@given(networks(), networks(), flows())
def test_one_profile_more_takes_nothing_away(one: dict[str, Any], other: dict[str, Any], flow: Flow) -> None:
    alone = verdict(flow, profile("a", default=one)).outcome
    together = verdict(flow, profile("a", default=one), profile("b", default=other)).outcome
    assert alone != "allowed" or together == "allowed"


def tcp(address: str, port: int, **more: Any) -> Flow:
    return Flow("out", TCP, to_mapped(address), port, **more)


WEB = rules("10.0.0.0/8", ports=((TCP, 443, 443),))


@pytest.mark.parametrize(
    ("flow", "reason"),
    [
        (tcp("10.0.0.1", 443), layout.REASON_NONE),
        (tcp("10.0.0.1", 80), layout.REASON_L4_PROTOCOL),
        (tcp("11.0.0.1", 443), layout.REASON_ADDRESS),
        (tcp("127.0.0.1", 1), layout.REASON_NONE),
        (tcp("::1", 1), layout.REASON_NONE),
        (Flow("in", TCP, to_mapped("10.0.0.1"), 443, 443), layout.REASON_L4_PROTOCOL),
    ],
)
def test_the_reason_is_the_layer_that_stopped_it(flow: Flow, reason: int) -> None:
    assert verdict(flow, profile(default=network(WEB))).reason == reason


def test_the_reason_is_that_of_the_profile_which_let_it_come_furthest() -> None:
    only_ipv6 = WEB | {"l3": ["IPV6"]}
    records = profile("a", default=network(only_ipv6)), profile("b", default=network(WEB))
    assert verdict(tcp("11.0.0.1", 443), *records).reason == layout.REASON_ADDRESS


def test_the_loopback_is_free_but_for_profiles_of_the_host() -> None:
    host = profile(scope="NODE", default=network())
    assert verdict(tcp("127.0.0.1", 80), host).outcome == "refused"
    assert verdict(tcp("127.0.0.1", 80), profile(default=network())).outcome == "allowed"


def test_the_rule_that_let_it_pass_is_told() -> None:
    found = verdict(tcp("10.2.3.4", 443), profile(default=network(WEB)))
    assert [answer.rule for answer in found.trace[0][1].answers] == ["", "tcp 443", "10.0.0.0/8"]


def test_what_no_profile_names_of_an_unknown_workload_is_refused_as_that() -> None:
    flow = tcp("10.0.0.1", 443)
    assert decide(unknown_policy("deny"), flow, {}) == Verdict(
        "refused", layout.REASON_UNKNOWN_WORKLOAD, governed=True
    )
    assert decide(unknown_policy("alert"), flow, {}).outcome == "alerted"
    assert not decide(unknown_policy("allow"), flow, {}).governed


def test_a_program_has_its_own_rules_and_a_script_before_its_interpreter() -> None:
    python, script = "/usr/bin/python3", "/app/fetch.py"
    record = profile(
        default=network(),
        processes=[
            process(python, network(rules("10.0.0.1/32"))),
            process(python, network(rules("10.0.0.2/32")), script=script, mode="ALERT"),
        ],
    )
    flow = tcp("10.0.0.1", 80)
    assert verdict(flow, record).outcome == "refused"
    assert verdict(flow, record, program=Program(python)).outcome == "allowed"
    assert verdict(flow, record, program=Program(python, "/other.py")).outcome == "allowed"
    assert verdict(flow, record, program=Program(python, script)).outcome == "alerted"


HTTP = application("HTTP", http=[{"method": "GET", "uri": "/api/*"}, {"method": "", "uri": "/health"}])


def get(uri: str, method: str = "GET", host: str | None = "web.example") -> Payload:
    return Payload(layout.L7_HTTP, method=method, uri=uri, host=host)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (get("/api/x"), layout.REASON_NONE),
        (get("/api/x", "POST"), layout.REASON_HTTP_REQUEST),
        (get("/health", "POST"), layout.REASON_NONE),
        (get("/healthy", "POST"), layout.REASON_HTTP_REQUEST),
        (get("/api/../x"), layout.REASON_HTTP_REQUEST),
        (get("/api/.%2fx"), layout.REASON_HTTP_REQUEST),
        (get("/api\\..\\x"), layout.REASON_HTTP_REQUEST),
        (get("/api/x?y=/../"), layout.REASON_NONE),
        (get("/api/x", host=None), layout.REASON_HTTP_REQUEST),
        (Payload(layout.L7_TLS, name="x.example"), layout.REASON_L7_PROTOCOL),
        (Payload(layout.L7_DNS, name="x.example"), layout.REASON_OPAQUE),
        (Payload(layout.L7_OPAQUE), layout.REASON_OPAQUE),
    ],
)
def test_payloads_are_held_against_l7(payload: Payload, reason: int) -> None:
    record = profile(default=network(rules("0.0.0.0/0", l7_given=HTTP)))
    assert verdict(tcp("192.0.2.1", 80, payload=payload), record).reason == reason


@pytest.mark.parametrize(
    ("host", "learned", "passes"),
    [
        ("a.reach.example", "a.reach.example", True),
        ("B.Reach.example", "a.reach.example", True),
        ("sni.example", "a.reach.example", True),
        ("ask.example", "a.reach.example", False),
        ("ask.example", "", True),
        ("reach.example", "", False),
        ("a.reach.example.", "", False),
        ("192.0.2.1", "", True),
        ("192.0.2.2", "", False),
        ("", "", False),
    ],
)
def test_a_host_is_a_name_that_may_be_reached(host: str, learned: str, passes: bool) -> None:
    l7 = application(dns=["ask.example"], sni=["sni.example"])
    record = profile(default=network(rules("192.0.2.0/24", names=("*.reach.example",), l7_given=l7)))
    names = frozenset({learned} if learned else ())
    found = verdict(tcp("192.0.2.1", 80, payload=get("/", host=host), learned=names), record)
    assert (found.reason == layout.REASON_NONE) == passes


def test_nothing_is_read_of_datagrams_and_their_rules_are_of_the_way_they_pass() -> None:
    quic = Payload(layout.L7_TLS, name="a.example")
    readable, opaque = application("HTTPS"), application(opaque=True)
    out, into = rules("10.0.0.0/8", l7_given=readable), rules("11.0.0.0/8", l7_given=opaque)
    record = profile(default=network(out, into))
    sent = Flow("either", UDP, to_mapped("10.0.0.1"), 443, 443, payload=quic)
    assert verdict(sent, record).reason == layout.REASON_OPAQUE
    came = Flow("either", UDP, to_mapped("11.0.0.1"), 443, 443, payload=quic)
    assert verdict(came, record).outcome == "allowed"


def test_the_loopback_is_free_but_for_questions_to_a_resolver_there() -> None:
    record = profile(default=network(rules(names=("a.example",))))

    def asked(name: str, *, listed: bool) -> str:
        payload = Payload(layout.L7_DNS, name)
        here = to_mapped("127.0.0.53")
        return verdict(Flow("out", UDP, here, 53, to_resolver=listed, payload=payload), record).outcome

    assert asked("b.example", listed=True) == "refused"
    assert asked("a.example", listed=True) == "allowed"
    assert asked("b.example", listed=False) == "allowed"


def test_a_bind_passes_where_somebody_may_come_to_the_port() -> None:
    into = rules("10.0.0.0/8", ports=((TCP, 8080, 8080),))
    policy, tries = compiled(profile("a", default=network(None, into)), profile("b"))
    assert decide_bind(policy, TCP, 8080, tries).outcome == "allowed"
    assert decide_bind(policy, TCP, 0, tries).outcome == "allowed"
    assert decide_bind(policy, TCP, 80, tries).reason == layout.REASON_L4_PROTOCOL
    assert decide_bind(policy, UDP, 8080, tries).outcome == "refused"


def test_what_is_ignored_passes_and_what_its_rules_say_is_told() -> None:
    found = verdict(tcp("10.0.0.1", 80), profile(mode="IGNORE", default=network(WEB)))
    assert (found.outcome, found.governed) == ("allowed", False)
    assert found.trace[0][1].stopped == layout.REASON_L4_PROTOCOL


def test_a_question_is_judged_by_its_name() -> None:
    record = profile(default=network(rules(names=("*.example.com",))))

    def asked(name: str) -> int:
        payload = Payload(layout.L7_DNS, name)
        flow = Flow("either", UDP, to_mapped("10.0.0.53"), 53, to_resolver=True, payload=payload)
        return verdict(flow, record).reason

    assert asked("www.example.com") == layout.REASON_NONE
    assert asked("a.www.example.com") == layout.REASON_NONE
    assert asked("example.com") == layout.REASON_DNS_NAME
    assert asked("example.org") == layout.REASON_DNS_NAME
    assert asked(".") == layout.REASON_DNS_NAME
    record = profile(default=network(rules(names=("*",))))
    assert asked(".") == layout.REASON_NONE


def test_a_server_name_is_judged_when_it_is_listed() -> None:
    record = profile(default=network(rules("0.0.0.0/0", l7_given=application("HTTPS", sni=["a.example"]))))
    good, bad = (Payload(layout.L7_TLS, name) for name in ("a.example", "b.example"))
    assert verdict(tcp("192.0.2.1", 443, payload=good), record).outcome == "allowed"
    assert verdict(tcp("192.0.2.1", 443, payload=bad), record).reason == layout.REASON_TLS_SNI
