# SPDX-License-Identifier: Apache-2.0
"""Which policy decides, and what stands against an action of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from schemas.subject import ProcessSubject
from stream_apps.assembly import build_policies, build_responder
from stream_apps.config.document import parse
from stream_apps.correlate.pods import Pod, PodTable
from stream_apps.errors import ConfigError
from stream_apps.respond.desired import DesiredStates
from tests.support.batches import BOOT_ID, HOST, POD_UID, SECOND, pod_record
from tests.support.stream import config
from tests.unit.stream_apps.test_respond import NOW, SUBJECT, WORKLOAD, order, threat

POD_ACTION = [{"action": "quarantine-pod", "ttl_s": 3600}]
KILL = [{"action": "kill", "ttl_s": 3600}]


def policy(**fields: Any) -> dict[str, Any]:
    return {"name": "mine", "rules": ["*"], "actions": POD_ACTION, **fields}


def deciding(*policies: dict[str, Any], **respond: Any) -> Any:
    pods = PodTable()
    for number in range(3):
        name = f"shop-{number}"
        pods.put(pod_record(uid=POD_UID if not number else f"uid-{number}", name=name, containers=[]))
    return build_responder(config(respond={"policies": list(policies), **respond}), DesiredStates(), pods)


@pytest.mark.parametrize(
    ("fields", "fits", "why"),
    [
        ({}, True, "mine: fits"),
        ({"rules": ["nsp.rce-*"]}, True, "fits"),
        ({"rules": ["sigma.*"]}, False, "mine: not for nsp.rce-egress"),
        ({"severities": ["HIGH"]}, False, "mine: not for CRITICAL"),
        ({"namespaces": ["sh*"], "labels": {"app": "*"}}, True, "fits"),
        ({"namespaces": ["pay*"]}, False, "mine: not for namespace shop"),
        ({"labels": {"app": "bank"}}, False, "mine: the pod has other labels"),
        ({"workloads": ["host/*"]}, False, f"mine: not for workload {POD_UID}"),
    ],
)
def test_the_first_policy_that_fits_decides_and_says_why(
    fields: dict[str, Any], fits: bool, why: str
) -> None:
    responder, _ = deciding(policy(**fields), policy(name="next", rules=["nothing"]))
    chosen = responder.book.explain(threat())
    assert why in chosen.explained[0]
    assert chosen.policy.name == ("mine" if fits else "nsp.rce-egress")
    response = responder.respond(threat(), NOW)
    assert response.record["action"] == ("quarantine-pod" if fits else "quarantine-process")
    assert ("(policy mine)" in response.record["reason"]) == fits


def test_a_policy_for_pods_does_not_fit_what_is_none() -> None:
    responder, _ = deciding(policy(namespaces=["*"]))
    explained = responder.book.explain(threat(workload=HOST, pod=None)).explained
    assert explained[0] == "mine: for pods only, and no pod is known"


def test_of_two_that_fit_the_first_decides_even_if_it_does_nothing() -> None:
    responder, _ = deciding(policy(actions=[{"action": "none"}]), policy(name="second"))
    response = responder.respond(threat(), NOW)
    assert (response.record["decision"], response.enforcements) == ("none", ())
    assert "policy mine" in response.record["reason"]


def test_a_rule_without_a_policy_only_alerts() -> None:
    assert build_policies(config().respond).choose(threat(rule_id="nsp.dns-trace")) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{name: a, approval: [kill]}", "approval of kill, which is not among the actions"),
        ("{name: a}, {name: a}", "two policies have the same name"),
        ("{name: a, actions: [{action: kill}, {action: quarantine-process}]}", "give one of the two"),
        ("{name: a, actions: [{action: explode}]}", "action"),
        ("{name: a, actions: [{action: kill, ttl_s: 60}]}", "kill of policy a ends after 60 s"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        parse(f"respond: {{policies: [{text}]}}")


def test_what_the_documentation_shows_is_a_configuration() -> None:
    text = (Path(__file__).parents[4] / "docs" / "responses.md").read_text(encoding="utf-8")
    parsed = parse(text.split("```yaml\n")[1].split("```")[0])
    assert [each.name for each in parsed.respond.policies] == ["ci is left alone", "payments asks first"]


def test_a_pod_is_quarantined_whole_with_its_allow_list() -> None:
    allow = [
        {"network": "10.96.0.10/32", "port": 53, "protocol": "udp", "direction": "out"},
        {"network": "10.0.0.4/32", "port": 8080},
    ]
    parsed = config(respond={"policies": [policy()], "quarantine_pod": {"allow": allow}})
    from stream_apps.assembly import allowed_flows  # noqa: PLC0415 - only this test looks at the flows

    flows = allowed_flows(parsed.respond)
    responder, _ = build_responder(parsed, DesiredStates(allowed=flows))
    (record,) = responder.respond(threat(), NOW).enforcements
    assert (record["subject"], record["quarantined"], record["killed"]) == (WORKLOAD, True, False)
    assert record["allowed"] == [
        {"network": "10.96.0.10/32", "port": 53, "protocol": 17, "incoming": False},
        {"network": "10.0.0.4/32", "port": 8080, "protocol": 6, "incoming": True},
    ]


def test_the_whole_host_is_no_workload_to_quarantine() -> None:
    responder, _ = deciding(policy())
    assert responder.respond(threat(workload=HOST, pod=None), NOW).record["decision"] == "never-cut"


@pytest.mark.parametrize(("wanted", "decision"), [(2, "issued"), (3, "refused")])
def test_so_many_healthy_replicas_are_left(wanted: int, decision: str) -> None:
    responder, _ = deciding(policy(min_healthy_replicas=wanted))
    response = responder.respond(threat(), NOW)
    assert response.record["decision"] == decision
    if decision == "refused":
        assert "2 healthy replicas of Deployment/shop would be left, 3 must be" in response.record["reason"]


def test_replicas_that_are_cut_or_not_ready_do_not_count() -> None:
    responder, situation = deciding(policy(min_healthy_replicas=2))
    situation.states.read_back(order("workload/uid-1", NOW, 600, "ops"))
    assert "1 healthy replicas" in responder.respond(threat(), NOW).record["reason"]
    responder, situation = deciding(policy(min_healthy_replicas=2))
    situation.replicas._pods.put(pod_record(uid="uid-2", name="shop-2", containers=[], ready=False))
    assert "1 healthy replicas" in responder.respond(threat(), NOW).record["reason"]


def test_a_pod_of_nobody_has_no_replicas_and_the_host_needs_none() -> None:
    responder, _ = deciding(policy(min_healthy_replicas=1, actions=KILL))
    lonely = Pod.of(pod_record(owner_kind=None, owner_name=None))
    assert "nothing owns pod" in responder.respond(threat(pod=lonely), NOW).record["reason"]
    service = {**HOST, "kind": "HOST_SERVICE"}
    assert responder.respond(threat(workload=service, pod=None), NOW).record["decision"] == "queued"


def test_a_kill_cuts_at_once_and_waits_for_the_disarmer() -> None:
    responder, situation = deciding(policy(actions=KILL), kill_after_s=7)
    response = responder.respond(threat(), NOW)
    (record,) = response.enforcements
    assert (record["subject"], record["quarantined"], record["killed"]) == (SUBJECT, True, False)
    (decision,) = response.decisions
    assert decision.decision == "queued"
    assert decision.waiting is not None
    assert (decision.waiting.state, decision.waiting.due_ns) == ("QUEUED", NOW + 7 * SECOND)
    situation.room.put(decision.waiting)
    again = responder.respond(threat(alert_id="b" * 32), NOW)
    assert (again.enforcements, again.record["decision"]) == ((), "queued")
    assert "waits already" in again.record["reason"]


def test_what_needs_a_person_cuts_nothing_before() -> None:
    responder, situation = deciding(policy(approval=["quarantine-pod"]))
    response = responder.respond(threat(), NOW)
    assert (response.enforcements, response.record["decision"]) == ((), "queued")
    waiting = response.decisions[0].waiting
    assert waiting is not None
    assert f"nsp responses approve {waiting.id}" in response.record["reason"]
    situation.room.put(replace(waiting, state="REJECTED", decided_by="ops", reason="ours"))
    assert responder.respond(threat(), NOW).record["decision"] == "refused"
    later = waiting.expires_ns
    assert responder.respond(threat(observed_ns=later), later).record["decision"] == "queued"


def test_a_disarmed_rule_cuts_nothing_and_is_tried_again() -> None:
    responder, _ = deciding(policy(actions=KILL, disarmer={"max_trees": 2, "new_for_s": 0}))
    found = []
    for number in range(4):
        response = responder.respond(threat(root=ProcessSubject(BOOT_ID, 50 + number, 9)), NOW)
        found.append((response.record["decision"], response.retry, len(response.enforcements)))
    assert found == [("queued", False, 1)] * 2 + [("disarmed", True, 0)] * 2
