# SPDX-License-Identifier: Apache-2.0
"""Profiles on trial: a dry run, then enforced if in its time nothing learned was stopped and nothing lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from schemas.codec import decode, decode_as, encode
from stream_apps.correlate.pods import Pod, PodTable
from stream_apps.pipeline import Pipeline
from stream_apps.profiles.canary import JUDGE_EVERY_NS, RULE_ID, SETTLE_NS, alert_id
from stream_apps.profiles.desk import ProfileDesk
from tests.support.batches import WALL_OFFSET_NS
from tests.support.learning import HOUR, WEB, learner_of, node, pod, published
from tests.support.profiles import profile
from tests.support.stream import config

if TYPE_CHECKING:
    from tests.support.batches import Node, Record

KEY = "shop/web"
DB = "198.51.100.7"
DAY = 24 * HOUR


class Trial:
    """A stream app with a profile on trial, and a node whose pod it selects."""

    def __init__(
        self, of: Node | None = None, topics: list[tuple[bytes, Record | None]] | None = None
    ) -> None:
        self.node = of or node()
        self.pods, self.desk = PodTable(), ProfileDesk()
        self.pods.put(pod(0))
        self.desk.takes(lambda _: True)
        self.desk.pod(pod(0)["uid"], Pod.of(pod(0)), 1)
        self.pipeline = Pipeline(config(), self.pods, self.desk)
        self.alerts: list[Record] = []
        self.topics = topics or []
        for key, record in self.topics:
            learner_of(self.pipeline).read_back(key, record, 1)

    def apply(self, generation: int = 100, at_ns: int = 0, **fields: Any) -> Record:
        record = profile(
            "web", namespace="shop", generation=generation, mode="ENFORCE", canary_for_ns=DAY,
            pod_selector={"match_labels": {"app": "shop"}, "match_expressions": []}, **fields,
        )  # fmt: skip
        self.desk.profile(KEY, record, 500, at_ns or self.node.wall_ns)
        return record

    def lives(self, hours: int = 26, *, stopped: str = "", generation: int = 100, loses_at: int = -1) -> None:
        """Hours of a pod that reaches its database, and may be told off for another address."""
        web = self.node.exec(self.node.service(WEB, serving=False), WEB, parent=0)
        for hour in range(hours):
            self.node.connect(web, DB, 5432)
            if stopped and hour == 1:
                self.node.refuse(
                    web, stopped, 443, reason="ADDRESS", generation=generation, alerted_only=True
                )
                self.node.connect(web, stopped, 443)
            if hour == loses_at:
                self.node.lose(3)
            batch = decode_as("EventBatch", encode("EventBatch", self.node.batch()))
            outcome = self.pipeline.process(batch, self.node.wall_ns)
            assert outcome.errors == []
            self.tick()
            self.node.now_ns += HOUR
        self.node.connect(web, DB, 5432)
        self.pipeline.process(self.node.batch(), self.node.wall_ns)
        self.tick(SETTLE_NS)

    def tick(self, later_ns: int = 0) -> None:
        now_ns = self.node.wall_ns + later_ns + JUDGE_EVERY_NS
        outcome = self.pipeline.tick(now_ns)
        self.alerts += [decode_as("Alert", encode("Alert", each)) for each in outcome.alerts]

    def told(self) -> list[Record]:
        """The profile orders it gives now, as they are read from the topic."""
        orders = []
        for draft in self.desk.drafts(self.node.wall_ns):
            name, record = decode(encode(draft.name, draft.record))
            self.desk.sent(draft)
            if name == "ProfileOrder":
                orders.append(record)
        return orders

    def states(self) -> list[str]:
        return [each["response"]["reason"] for each in self.alerts if each["rule_id"] == RULE_ID]


def dry(orders: list[Record]) -> list[bool]:
    return [each["profile"]["dry_run"] for each in orders]


def test_a_canary_is_told_as_a_dry_run_first_and_enforced_by_itself_when_nothing_spoke_against_it() -> None:
    trial = Trial()
    trial.apply()
    assert dry(trial.told()) == [True]
    trial.lives(23)
    assert (trial.states(), trial.told()) == ([], [])
    trial.lives(3)
    assert trial.states() == ["passed"]
    orders = trial.told()
    assert dry(orders) == [False]
    assert (orders[0]["profile"]["generation"], orders[0]["profile"]["mode"]) == (100, "ENFORCE")
    assert (trial.alerts[-1]["id"], trial.alerts[-1]["severity"]) == (
        alert_id(KEY, 100, "passed"),
        "INFORMATIONAL",
    )


def test_a_profile_without_a_trial_is_told_as_it_is() -> None:
    trial = Trial()
    record = profile("web", namespace="shop", mode="ENFORCE")
    trial.desk.profile(KEY, record, 500, 1)
    assert dry(trial.told()) == [False]


def test_one_that_would_have_stopped_what_is_learned_stays_dry_and_says_what() -> None:
    trial = Trial()
    trial.apply()
    trial.told()
    trial.lives(stopped="203.0.113.5")
    assert trial.states() == ["held"]
    assert trial.told() == []
    assert "203.0.113.5" in trial.alerts[-1]["description"]
    assert trial.alerts[-1]["severity"] == "MEDIUM"


def test_what_the_learned_profile_does_not_have_may_be_stopped() -> None:
    """A shell below a service is never learned: that the canary would have stopped it speaks for it."""
    trial = Trial()
    trial.apply()
    trial.told()
    web = trial.node.service(WEB)
    shell = trial.node.spawn(web, "/usr/bin/nc", ["nc", "203.0.113.5", "443"])
    trial.node.refuse(shell, "203.0.113.5", 443, reason="ADDRESS", generation=100, alerted_only=True)
    trial.node.connect(shell, "203.0.113.5", 443)
    trial.lives()
    assert trial.states() == ["passed"]


def test_a_loss_within_the_time_holds_it() -> None:
    trial = Trial()
    trial.apply()
    trial.lives(loses_at=5)
    assert trial.states() == ["held"]
    assert "lost" in trial.alerts[-1]["description"]


def test_a_loss_before_the_time_does_not() -> None:
    trial = Trial()
    trial.lives(4, loses_at=1)
    trial.apply()
    trial.lives()
    assert trial.states() == ["passed"]


def test_a_node_that_was_not_heard_to_the_end_keeps_it_waiting() -> None:
    trial = Trial()
    other = pod(1, node="worker-2")
    trial.desk.pod(other["uid"], Pod.of(other), 1)
    trial.apply()
    trial.lives(30)
    assert trial.states() == []
    assert dry(trial.told()) == [True, True]


def test_the_end_is_judged_when_what_was_learned_up_to_it_is_on_the_topic() -> None:
    trial = Trial()
    trial.apply()
    ends_ns = trial.node.wall_ns + DAY
    trial.lives(23)
    trial.node.now_ns = ends_ns - WALL_OFFSET_NS
    trial.node.connect(trial.node.service(WEB), DB, 5432)
    trial.pipeline.process(trial.node.batch(), trial.node.wall_ns)
    trial.tick(SETTLE_NS // 2)
    assert trial.states() == []
    trial.tick(SETTLE_NS)
    assert trial.states() == ["passed"]


def test_without_a_learner_nothing_passes() -> None:
    trial = Trial()
    trial.pipeline = Pipeline(config(learn={"enabled": False}), trial.pods, trial.desk)
    trial.apply()
    trial.tick()
    assert trial.states() == ["held"]


def test_a_profile_that_selects_nothing_does_not_pass() -> None:
    trial = Trial()
    trial.apply()
    trial.desk.pod(pod(0)["uid"], None, 2)
    trial.lives(30)
    assert trial.states() == []


@pytest.mark.parametrize(("stopped", "expected"), [("203.0.113.5", "held"), ("", "passed")])
def test_a_restarted_app_comes_to_the_same_end(stopped: str, expected: str) -> None:
    """Only what is on the topics is left: observations, the profile with its time, orders."""
    before = Trial()
    before.apply(at_ns=before.node.wall_ns)
    began_ns = before.node.wall_ns
    before.lives(12, stopped=stopped)
    topics = list(published(before.pipeline, before.node.wall_ns).items())
    after = Trial(before.node, topics)
    after.apply(at_ns=began_ns)
    after.lives(14)
    assert after.states() == [expected]
    assert dry(after.told()) == [expected == "held"]


def test_that_it_was_passed_is_read_from_the_orders() -> None:
    first = Trial()
    first.apply()
    first.lives()
    (order,) = first.told()
    for order_first in (True, False):
        second = Trial()
        if order_first:
            second.desk.order_read("ProfileOrder", order)
        second.apply()
        if not order_first:
            second.desk.order_read("ProfileOrder", order)
        second.tick()
        assert second.states() == []
        assert second.told() == []  # it is told already
        assert not second.desk.is_pending(KEY)


def test_a_changed_profile_is_on_trial_anew() -> None:
    trial = Trial()
    trial.apply()
    trial.lives()
    assert dry(trial.told()) == [False]
    trial.apply(generation=200)
    assert dry(trial.told()) == [True]


def test_a_newer_profile_of_the_same_workload_stands_for_it_in_what_the_kernel_tells() -> None:
    trial = Trial()
    trial.apply()
    trial.lives(stopped="203.0.113.5", generation=300)
    assert trial.states() == ["held"]
    older = Trial()
    older.apply()
    older.lives(stopped="203.0.113.5", generation=50)
    assert older.states() == ["passed"]


def test_marks_are_made_for_every_way_of_being_stopped() -> None:
    trial = Trial()
    trial.apply()
    web = trial.node.exec(trial.node.service(WEB, serving=False), WEB, parent=0)
    trial.node.add(
        "DnsQuestion", web, cookie=1, protocol=17, server_address="10.96.0.10", transaction_id=1,
        name="other.example", question_type=1, verdict="ALERTED", reason="DNS_NAME", generation=100,
    )  # fmt: skip
    away = {"generation": 100, "alerted_only": True, "reason": "L4_PROTOCOL"}
    trial.node.refuse(web, "0.0.0.0", 0, hook="BIND", local_port=9000, **away)
    trial.node.refuse(web, "10.1.1.1", 50000, hook="PACKET_IN", local_port=8080, **away)
    trial.node.refuse(web, "10.1.1.2", 0, hook="RAW_SOCKET", **away)
    trial.pipeline.process(trial.node.batch(), trial.node.wall_ns)
    kinds = {key.kind for _, key, _ in learner_of(trial.pipeline).would_stop()}
    assert kinds == {"QUESTION", "LISTEN", "INGRESS"}


def test_nothing_is_marked_while_nothing_is_on_trial() -> None:
    trial = Trial()
    trial.lives(3, stopped="203.0.113.5")
    assert list(learner_of(trial.pipeline).would_stop()) == []
