# SPDX-License-Identifier: Apache-2.0
"""What a person is told about a workload's profiles and a flow."""

from __future__ import annotations

from typing import Any

from schemas.addresses import to_mapped
from sensor.policy import layout
from sensor.policy.explain import Explanation, explain
from sensor.policy.layers import Flow
from sensor.policy.payloads import Payload
from sensor.policy.policy import Selection
from sensor.policy.profile import Program, compile_profile
from tests.support.profiles import TCP, application, network, process, profile, rules

NOW = 1000
CURL = Program("/usr/bin/curl")
WEB = profile("web", default=network(rules("10.0.0.0/8", ports=((TCP, 443, 443),))))


def explained(
    *records: dict[str, Any],
    to: str = "10.1.2.3",
    port: int = 443,
    program: Program | None = None,
    **more: Any,
) -> Explanation:
    selections = [Selection(compile_profile(record)) for record in records]
    return explain("pod", selections, Flow("out", TCP, to_mapped(to), port, **more), program, NOW)


def test_the_rule_that_lets_a_flow_pass_is_named_layer_by_layer() -> None:
    assert list(explained(WEB).lines()) == [
        "workload pod: 1 profile, mode enforce",
        "  default/web (generation 1, enforce): its default rules, spec.default",
        "    l3: passes",
        "    l4: passes by tcp 443 (egress.l4.protocolPorts)",
        "    address: passes by 10.0.0.0/8 (egress.cidr4)",
        "allowed by default/web",
    ]


def test_the_layer_that_stops_a_flow_is_named() -> None:
    assert explained(WEB, to="192.0.2.1").outcome() == "refused: no rule allows its address"
    assert list(explained(WEB, port=80).lines())[-2:] == [
        "    l4: stopped, no rule allows its protocol and port (egress.l4)",
        "refused: no rule allows its protocol and port",
    ]


def test_conflicts_between_profiles_are_told_with_what_holds() -> None:
    found = explained(WEB, profile("none", mode="ALERT", generation=3))
    assert found.conflicts == (
        "default/web says enforce, default/none says alert: the strictest holds, enforce",
        (
            "default/web allows it, default/none does not (no rule allows its address): "
            "one that allows is enough"
        ),
    )
    assert found.verdict
    assert found.verdict.outcome == "allowed"


def test_a_program_with_rules_of_its_own_is_explained_by_them() -> None:
    record = WEB | {"processes": [process(CURL.path, network(rules("192.0.2.0/24")), mode="ALERT")]}
    assert (
        explained(record, to="192.0.2.1", program=CURL).contributions[0].rules
        == "its rules for /usr/bin/curl"
    )
    assert explained(record, to="10.0.0.1", program=CURL).outcome().startswith("alerted: ")
    assert explained(record, to="10.0.0.1").outcome() == "allowed by default/web"


def test_an_expired_profile_is_shown_and_does_not_count() -> None:
    found = explained(WEB | {"expires_at_ns": NOW})
    assert "expired: does not count" in "\n".join(found.lines())
    assert found.outcome() == "allowed: no profile governs it"


def test_a_workload_without_profiles_is_free() -> None:
    assert list(explained().lines()) == [
        "workload pod: 0 profiles, mode ignore",
        "allowed: no profile governs it",
    ]


def test_the_name_an_address_was_answered_for_is_told() -> None:
    record = profile("dns", default=network(rules(names=("*.example.com",))))
    found = explained(record, learned=frozenset({"www.example.com"}))
    assert (
        "    address: passes by *.example.com, answered for www.example.com (egress.fqdns)" in found.lines()
    )


def test_a_payload_is_explained_too() -> None:
    http = application("HTTP", http=[{"method": "GET", "uri": "/api/*"}])
    record = profile("http", default=network(rules("0.0.0.0/0", l7_given=http)))
    request = Payload(layout.L7_HTTP, method="GET", uri="/api/x", host="h.example")
    assert "    l7: passes by GET /api/* (egress.l7.http)" in explained(record, payload=request).lines()


def test_the_document_says_the_same() -> None:
    document = explained(WEB).document()
    assert document["verdict"] == {"outcome": "allowed", "reason": 0, "text": "allowed by default/web"}
    assert [layer["rule"] for layer in document["profiles"][0]["layers"]] == ["", "tcp 443", "10.0.0.0/8"]
