# SPDX-License-Identifier: Apache-2.0
"""What is done about a threat, and every reason not to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from nsp.override import Order
from schemas.subject import ProcessSubject
from stream_apps.assembly import build_responder
from stream_apps.correlate.pods import Pod
from stream_apps.detect.rule import Destination
from stream_apps.respond.desired import MAX_DESTINATIONS, DesiredStates
from stream_apps.respond.disarmer import Attempt, DisarmerLimits
from stream_apps.respond.limits import Allowance, Limits, Rate, TokenBucket
from stream_apps.respond.threat import Threat
from stream_apps.respond.times import Times
from tests.support.batches import BOOT_ID, HOST, POD, POD_UID, SECOND, image, pod_record
from tests.support.stream import config

if TYPE_CHECKING:
    from stream_apps.respond.responder import Responder

NOW = 1_798_000_000 * SECOND
EVIL = Destination("203.0.113.9", 4444, 6)
BOTH = [{"action": "quarantine-process", "ttl_s": 3600}, {"action": "block-destination", "ttl_s": 1800}]
SUBJECT = f"process/{BOOT_ID}/4188/99"
WORKLOAD = f"workload/{POD_UID}"


def threat(**fields: Any) -> Threat:
    base = Threat(
        rule_id="nsp.rce-egress",
        severity="CRITICAL",
        alert_id="a" * 32,
        node="worker-1",
        summary="nsp.rce-egress: curl connected",
        workload=POD,
        pod=Pod.of(pod_record()),
        root=ProcessSubject(BOOT_ID, 4188, 99),
        root_images=(image(4188, 99, "/usr/bin/dash", argv=["sh", "-c", "x"]),),
        destinations=(EVIL,),
        observed_ns=NOW - SECOND,
        observed_boot_ns=5,
    )
    return replace(base, **fields)


def order(subject: str, at_ns: int, seconds: int, reason: str, *, quarantined: bool = True) -> dict[str, Any]:
    """What a person types, as the command line publishes it."""
    return Order(subject, "worker-1", quarantined, seconds, reason).record(at_ns, None)


def responder(states: DesiredStates | None = None, **respond: Any) -> Responder:
    if "actions" in respond:
        respond["nsp.rce-egress"] = {"actions": respond.pop("actions")}
    return build_responder(config(respond=respond), DesiredStates() if states is None else states)[0]


def test_a_quarantine_is_the_whole_state_of_its_subject_until_a_time() -> None:
    response = responder().respond(threat(), NOW)
    assert response.enforcements == (
        {
            "node": "worker-1", "subject": SUBJECT, "generation": NOW - SECOND, "issued_at_ns": NOW,
            "expires_at_ns": NOW + 3599 * SECOND, "quarantined": True, "blocked_destinations": [],
            "alert_id": "a" * 32, "reason": "nsp.rce-egress: curl connected", "evidence_boot_ns": 5,
            "allowed": [], "killed": False,
        },
    )  # fmt: skip
    assert (response.record["action"], response.record["decision"]) == ("quarantine-process", "issued")
    assert response.record["generation"] == NOW - SECOND


def test_several_actions_of_a_rule_are_all_taken_and_told() -> None:
    response = responder(actions=BOTH).respond(threat(), NOW)
    assert [each["subject"] for each in response.enforcements] == [SUBJECT, WORKLOAD]
    assert response.enforcements[1]["blocked_destinations"] == [
        {"address": "203.0.113.9", "port": 0, "protocol": 0}
    ]
    assert "block-destination: 203.0.113.9 is out of reach" in response.record["reason"]


def test_one_port_can_be_blocked_alone() -> None:
    response = responder(actions=BOTH[1:], blocking={"whole_address": False}).respond(threat(), NOW)
    assert response.enforcements[0]["blocked_destinations"] == [
        {"address": "203.0.113.9", "port": 4444, "protocol": 6}
    ]


@pytest.mark.parametrize(
    ("respond", "fields", "decision", "reason"),
    [
        ({}, {"severity": "MEDIUM"}, "none", "MEDIUM is below HIGH"),
        ({}, {"rule_id": "nsp.enforcement-refused"}, "none", "only alerts"),
        ({"actions": []}, {}, "none", "only alerts"),
        ({"actions": [{"action": "alert"}]}, {}, "none", "only alerts"),
        ({}, {"root": None}, "none", "no process to cut"),
        ({}, {"root": ProcessSubject(BOOT_ID, 1, 0)}, "never-cut", "process 1 is the node's own"),
        ({}, {"root_images": (image(9, 9, "/usr/bin/kubelet"),)}, "never-cut", "/usr/bin/kubelet is on"),
        (
            {},
            {"root_images": (image(9, 9, "/x", argv=["nsp", "sensor", "run"]),)},
            "never-cut",
            "nsp sensor is",
        ),
        ({"never_cut": {"namespaces": ["sh*"]}}, {}, "never-cut", "namespace shop"),
        ({"never_cut": {"labels": {"app": "*"}}}, {}, "never-cut", "label app"),
        ({"never_cut": {"workloads": ["0b9c*"]}}, {}, "never-cut", "workload 0b9c"),
        ({}, {"observed_ns": NOW - 3600 * SECOND}, "expired", "older than the response lasts (3600 s)"),
        ({"dry_run": True}, {}, "dry-run", "would be issued"),
        ({"nsp.rce-egress": {"dry_run": True}}, {}, "dry-run", "would be issued"),
    ],
)
def test_each_objection_leaves_the_alert_and_says_why(
    respond: dict[str, Any], fields: dict[str, Any], decision: str, reason: str
) -> None:
    response = responder(**respond).respond(threat(**fields), NOW)
    assert response.record["decision"] == decision
    assert reason in response.record["reason"]
    assert response.enforcements == ()


@pytest.mark.parametrize(
    ("fields", "decision"),
    [
        ({"workload": HOST, "pod": None}, "never-cut"),
        ({"destinations": ()}, "none"),
        ({"destinations": (Destination("127.0.0.1", 80, 6),)}, "none"),
        ({"destinations": (Destination("10.96.0.10", 53, 17),)}, "none"),
        ({"destinations": (Destination("nonsense", 80, 6),)}, "none"),
    ],
    ids=str,
)
def test_what_is_never_blocked(fields: dict[str, Any], decision: str) -> None:
    response = responder(actions=BOTH[1:]).respond(threat(**fields), NOW)
    assert (response.record["decision"], response.enforcements) == (decision, ())


def test_a_protected_program_further_down_does_not_protect_the_tree() -> None:
    # root_images are those of the process that is cut; what it starts is not among them.
    assert responder().respond(threat(), NOW).record["decision"] == "issued"


def test_a_cut_in_force_is_not_published_again_until_it_is_worth_it() -> None:
    decides = responder()
    decides.respond(threat(), NOW)
    again = decides.respond(threat(observed_ns=NOW, alert_id="b" * 32), NOW)
    assert (again.record["decision"], again.enforcements) == ("issued", ())
    assert again.record["generation"] == NOW - SECOND
    later = NOW + 2000 * SECOND
    renewed = decides.respond(threat(observed_ns=later), later)
    assert renewed.enforcements[0]["expires_at_ns"] == later + 3600 * SECOND


def test_destinations_of_a_workload_add_up_and_end_each_in_its_time() -> None:
    states = DesiredStates()
    decides = responder(states, actions=BOTH[1:])
    decides.respond(threat(), NOW)
    other = Destination("2001:db8::9", 443, 6)
    later = NOW + 600 * SECOND
    second = decides.respond(threat(destinations=(other,), observed_ns=later), later).enforcements[0]
    assert [each["address"] for each in second["blocked_destinations"]] == [EVIL.address, other.address]
    assert second["expires_at_ns"] == later + 1800 * SECOND
    first_ends = NOW + 1799 * SECOND
    assert list(states.expire(first_ends - 1)) == []
    (smaller,) = states.expire(first_ends)
    assert [each["address"] for each in smaller["blocked_destinations"]] == [other.address]
    assert smaller["generation"] > second["generation"]
    assert list(states.expire(later + 1800 * SECOND)) == []
    assert len(states) == 0


def test_destinations_and_subjects_are_bounded_and_counted() -> None:
    states = DesiredStates(max_subjects=2)
    decides = responder(states, actions=BOTH[1:])
    many = tuple(Destination(f"198.51.100.{number}", 80, 6) for number in range(MAX_DESTINATIONS + 6))
    record = decides.respond(threat(destinations=many), NOW).enforcements[0]
    assert (len(record["blocked_destinations"]), states.destinations_dropped) == (MAX_DESTINATIONS, 6)
    for number in range(2):
        decides.respond(threat(workload={**POD, "id": f"pod-{number}"}), NOW)
    assert (len(states), states.evicted) == (2, 1)


def test_a_clock_set_back_does_not_make_a_generation_that_looks_replayed() -> None:
    decides = responder(actions=BOTH[1:])
    first = decides.respond(threat(), NOW).enforcements[0]
    back = decides.respond(
        threat(observed_ns=NOW - 100 * SECOND, destinations=(Destination("192.0.2.7", 1, 6),)), NOW
    ).enforcements[0]
    assert back["generation"] == first["generation"] + 1


class TestReadBack:
    def test_after_a_restart_what_is_on_the_topic_is_in_force(self) -> None:
        issued = responder(actions=BOTH).respond(threat(), NOW).enforcements
        states = DesiredStates()
        for each in issued:
            states.read_back(each)
        decides = responder(states, actions=BOTH)
        assert decides.respond(threat(), NOW).enforcements == ()
        (block,) = decides.respond(threat(destinations=(Destination("192.0.2.7", 1, 6),)), NOW).enforcements
        assert len(block["blocked_destinations"]) == 2

    def test_an_older_generation_changes_nothing(self) -> None:
        states = DesiredStates()
        states.read_back(order(SUBJECT, NOW, 60, "newer"))
        states.read_back(order(SUBJECT, NOW - 1, 60, "older"))
        state = states.get("worker-1", SUBJECT, NOW)
        assert state is not None
        assert state.reason == "newer"

    def test_a_persons_release_stands_against_the_rule_until_it_is_over(self) -> None:
        states = DesiredStates()
        decides = responder(states, actions=BOTH)
        decides.respond(threat(), NOW)
        for subject in (SUBJECT, WORKLOAD):
            states.read_back(order(subject, NOW, 60, "ops: false alarm", quarantined=False))
        response = decides.respond(threat(observed_ns=NOW), NOW)
        assert response.record["decision"] == "never-cut"
        assert response.record["reason"].count("a person's order stands: ops: false alarm") == 2
        later = NOW + 60 * SECOND
        assert decides.respond(threat(observed_ns=later), later).record["decision"] == "issued"

    def test_a_persons_quarantine_of_a_workload_is_not_replaced_by_a_rules_block(self) -> None:
        states = DesiredStates()
        states.read_back(order(WORKLOAD, NOW, 600, "ops"))
        assert responder(states, actions=BOTH[1:]).respond(threat(), NOW).enforcements == ()


class TestLimits:
    def test_a_bucket_gives_its_burst_and_then_its_rate(self) -> None:
        bucket = TokenBucket(Rate(per_minute=60, burst=2), NOW)

        def takes(at_s: float) -> bool:
            if bucket.has(NOW + int(at_s * SECOND)):
                bucket.take()
                return True
            return False

        assert [takes(each) for each in (0, 0, 0, 0.5, 1, 1, 3, 3, 3)] == [
            True, True, False, False, True, False, True, True, False,
        ]  # fmt: skip

    def test_a_clock_that_steps_back_gives_nothing_twice(self) -> None:
        bucket = TokenBucket(Rate(per_minute=60, burst=1), NOW)
        bucket.take()
        assert not bucket.has(NOW - 3600 * SECOND)

    def test_a_policy_and_a_node_each_have_their_limit(self) -> None:
        limits = Limits(per_node=Rate(1, 2))
        one, two = (Allowance(name, Rate(1, 3), DisarmerLimits(99, 99)) for name in ("one", "two"))
        asked = [(one, "n1"), (one, "n1"), (one, "n1"), (one, "n2"), (one, "n2"), (two, "n2")]
        found = [limits.objection(allowance, "r", Attempt(node, "w", "t"), NOW) for allowance, node in asked]
        assert [each and each.reason for each in found] == [
            None, None, "the node's rate limit is used up", None, "the rate limit of one is used up", None,
        ]  # fmt: skip

    def test_a_put_off_response_is_to_be_tried_again(self) -> None:
        decides = responder(node_burst=1, node_per_minute=1)
        assert not decides.respond(threat(), NOW).retry
        second = decides.respond(threat(root=ProcessSubject(BOOT_ID, 5, 5)), NOW)
        assert (second.record["decision"], second.retry) == ("rate-limited", True)


class TestTimes:
    def status(self, outcome: str, **fields: int) -> dict[str, Any]:
        return {
            "node": "worker-1", "subject": SUBJECT, "generation": NOW - SECOND, "outcome": outcome,
            "applied_boot_ns": 0, "first_refused_boot_ns": 0, **fields,
        }  # fmt: skip

    def test_the_four_times_of_one_enforcement(self) -> None:
        times = Times()
        times.issued(responder().respond(threat(), NOW).enforcements[0], NOW - 20)
        applied = times.on_status(self.status("APPLIED", applied_boot_ns=30))
        assert applied is not None
        assert (applied.evidence_boot_ns, applied.decided_boot_ns, applied.time_to_block_ns) == (5, 20, 25)
        refused = times.on_status(self.status("FIRST_REFUSAL", first_refused_boot_ns=44))
        assert refused is not None
        assert (refused.applied_boot_ns, refused.first_refused_boot_ns) == (30, 44)
        assert times.on_status(self.status("ENDED")) is not None
        assert len(times) == 0

    def test_somebody_elses_status_says_nothing(self) -> None:
        assert Times().on_status(self.status("APPLIED")) is None

    def test_what_waits_is_bounded(self) -> None:
        times = Times(max_awaited=1)
        record = responder().respond(threat(), NOW).enforcements[0]
        for generation in (1, 2):
            times.issued({**record, "generation": generation}, 0)
        assert (len(times), times.evicted) == (1, 1)
