# SPDX-License-Identifier: Apache-2.0
"""States and the gate: when a workload is called complete, and when not any more."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from stream_apps.learn.baseline import LearnedBaseline
from stream_apps.learn.completeness import Thresholds, Verdict, judge
from tests.support.batches import SECOND
from tests.support.learning import (
    HOUR,
    WEB,
    container,
    deeds,
    learner_of,
    learning,
    merged,
    node,
    pod,
    published,
    shard,
    take,
    uid,
)

if TYPE_CHECKING:
    from stream_apps.learn.merged import Merged
    from stream_apps.pipeline import Pipeline
    from tests.support.batches import Node

GATE = Thresholds(quiet_s=6 * 3600, unstable_after_s=48 * 3600, min_coverage=0.9)


def gate(verdict: Verdict) -> set[str]:
    """What is missing."""
    return {each.name for each in verdict.gate if not each.met}


def live(through: Pipeline, on: Node, hours: int, peers: int = 4) -> int:
    """Two pods do the same every hour; the first hour they are started."""
    webs = [on.exec(on.service(WEB, workload=place, serving=False), WEB, parent=0) for place in (1, 2)]
    for _ in range(hours):
        for web in webs:
            for number in range(peers):
                on.connect(web, f"198.51.100.{number}", 443)
        take(through, on)
        on.now_ns += HOUR
    return webs[0]


def a_workload(hours: int = 30) -> tuple[Pipeline, Node, int]:
    through, on = learning(), node(pods=(0, 1))
    return through, on, live(through, on, hours)


def test_a_workload_that_did_the_same_for_long_enough_is_stable_and_may_be_enforced() -> None:
    through, _, _ = a_workload()
    verdict = judge(merged(through), GATE)
    assert (verdict.state, verdict.may_enforce, gate(verdict)) == ("stable", True, set())
    assert verdict.estimate.units == 60
    assert verdict.wide.units == 12  # thirty hours that begin within one of six, of two pods


@pytest.mark.parametrize(("hours", "state"), [(1, "warm-up"), (3, "learning"), (30, "stable")])
def test_the_states_on_the_way(hours: int, state: str) -> None:
    through, on, web = a_workload(hours)
    on.now_ns -= HOUR - 60 * SECOND
    on.connect(web, "198.51.100.1", 443)
    take(through, on)
    assert judge(merged(through), GATE).state == state


@pytest.mark.parametrize(
    ("changed", "missing"),
    [
        ({"quiet_s": 100 * 3600}, "quiet"),
        ({"min_coverage": 0.9999}, "coverage"),
        ({"min_pods": 3}, "replicas"),
        ({"min_starts": 3}, "starts"),
    ],
)
def test_each_condition_keeps_the_gate_shut_and_says_so(changed: dict[str, Any], missing: str) -> None:
    through, _, _ = a_workload()
    verdict = judge(merged(through), replace(GATE, **changed))
    assert gate(verdict) == {missing}
    assert not verdict.may_enforce
    assert next(each.text for each in verdict.gate if not each.met) in verdict.reason


def test_a_loss_within_the_quiet_window_keeps_the_gate_shut_and_an_old_one_does_not() -> None:
    through, on, web = a_workload()
    on.lose(1)
    on.connect(web, "198.51.100.1", 443)
    take(through, on)
    assert gate(judge(merged(through), GATE)) == {"loss"}
    on.now_ns += 7 * HOUR
    on.connect(web, "198.51.100.1", 443)
    take(through, on)
    assert judge(merged(through), GATE).may_enforce


def test_time_in_which_the_workload_was_not_there_is_not_quiet() -> None:
    through, on, _ = a_workload(hours=3)
    on.now_ns += 100 * HOUR
    take(through, on)
    assert "quiet" in gate(judge(merged(through), GATE))


def test_behaviours_in_bursts_make_the_estimate_unreliable() -> None:
    through, on = learning(), node(pods=(0, 1))
    web = live(through, on, hours=12, peers=1)
    for burst in range(12):
        for _ in range(2):
            on.connect(web, f"203.0.113.{burst}", 443)
            take(through, on)
            on.now_ns += HOUR
        on.now_ns += 5 * HOUR
    verdict = judge(merged(through), GATE)
    assert not verdict.reliable
    assert "agreement" in gate(verdict)
    assert "UNRELIABLE" in verdict.statement()


def test_what_still_does_new_things_after_long_is_unstable() -> None:
    through, on = learning(learn={"bounds": {"addresses": 100}}), node(pods=(0, 1))
    web = live(through, on, hours=1)
    for hour in range(60):
        on.connect(web, f"203.0.{hour}.1", 443)
        take(through, on)
        on.now_ns += HOUR
    verdict = judge(merged(through), GATE)
    assert verdict.state == "unstable"
    assert "nothing new for" in verdict.reason or "differ" in verdict.reason


def test_what_goes_beyond_a_bound_is_unstable_and_says_what() -> None:
    through, on, web = a_workload()
    for number in range(200):
        on.connect(web, f"10.{number}.0.1", 443)
    take(through, on)
    verdict = judge(merged(through), GATE)
    assert (verdict.state, "bounds" in gate(verdict)) == ("unstable", True)
    assert "destinations" in verdict.reason


def stable() -> tuple[Pipeline, Node, int]:
    """A workload that a learner has found stable."""
    through = learning(learn={"gate": {"quiet_s": 6 * 3600, "min_coverage": 0.9}})
    on = node(pods=(0, 1))
    web = live(through, on, 30)
    published(through, on.wall_ns)
    assert shard(through).stable_ns
    return through, on, web


def test_what_comes_after_it_was_stable_is_drift_and_makes_it_unstable() -> None:
    through, on, web = stable()
    on.connect(web, "203.0.113.9", 443)
    take(through, on)
    found: Merged = merged(through)
    assert [key.peer for key, each in found.behaviours.items() if each.drift] == ["203.0.113.9/32"]
    verdict = judge(found, GATE)
    assert (verdict.state, verdict.reason) == ("unstable", "1 behaviours are new since it was stable")


def test_one_more_replica_on_another_node_is_judged_by_what_the_others_do() -> None:
    through, _, _ = stable()
    on = node("worker-2", (3,))
    web = on.service(WEB)
    on.connect(web, "198.51.100.1", 443)
    on.connect(web, "203.0.113.9", 443)
    take(through, on)
    drifted = [key.peer for key, each in shard(through, on="worker-2").behaviours.items() if each.drift]
    assert drifted == ["203.0.113.9/32"]


def test_the_baseline_knows_what_was_learned_and_says_nothing_before_it_is_stable() -> None:
    through, on, web = a_workload(3)
    on.listen(web, 8080)
    on.answer(web, "db.example", ["10.3.0.5"])
    on.connect(web, "10.3.0.5", 5432)
    take(through, on)
    baseline = LearnedBaseline(learner_of(through))
    assert baseline.known(uid(0), "executable", WEB)
    assert baseline.known(uid(1), "destination", "198.51.100.1:443")
    assert baseline.known(uid(0), "destination", "db.example:5432")
    assert baseline.known(uid(0), "listen", "8080")
    assert baseline.known(uid(0), "listen", "8081") is None
    assert baseline.known("nobody", "executable", WEB) is None


def test_the_baseline_of_a_stable_workload_knows_what_is_strange_and_goes_on_knowing() -> None:
    through, on, web = stable()
    baseline = LearnedBaseline(learner_of(through))
    for _ in range(3):
        assert baseline.known(uid(0), "destination", "203.0.113.9:443") is False
        assert baseline.known(uid(0), "destination", "198.51.100.1:80") is False
        assert baseline.known(uid(0), "destination", "198.51.100.1:443") is True
        assert baseline.known(uid(0), "executable", "/usr/bin/xmrig") is False
        on.connect(web, "203.0.113.9", 443)
        take(through, on)


def test_a_new_image_is_learned_before_it_is_judged() -> None:
    through, on, web = stable()
    changed = pod(0, containers=[{"id": container(0), "name": "shop", "image": "registry.example/shop:2"}])
    through._pods.put(changed)
    on.connect(web, "203.0.113.9", 443)
    take(through, on)
    assert LearnedBaseline(learner_of(through)).known(uid(0), "destination", "203.0.113.8:443") is None
    assert not any(each.drift for each in merged(through).behaviours.values())
    assert judge(merged(through), GATE).state == "warm-up"


def test_the_estimate_of_real_learning_has_the_truth_in_nine_of_ten_workloads() -> None:
    dice = random.Random(11)
    runs, held = 40, 0
    for _ in range(runs):
        chances = {
            f"198.51.100.{number}": chance
            for number, chance in enumerate([0.9] * 4 + [0.15] * 5 + [0.004] * 25)
        }
        through, on = learning(), node()
        web = on.service(WEB)
        for _ in range(72):
            for address, chance in chances.items():
                if dice.random() < chance:
                    on.connect(web, address, 443)
            take(through, on)
            on.now_ns += HOUR
        seen = {peer.removesuffix("/32") for *_, peer in deeds(merged(through))}
        estimate = judge(merged(through), GATE).estimate
        truth = sum(chances[each] for each in seen) / sum(chances.values())
        held += estimate.low <= truth <= estimate.high
    assert held >= 0.9 * runs


def test_what_is_new_to_a_stable_workload_becomes_no_part_of_a_known_network() -> None:
    through, on, web = stable()
    for number in range(100, 200):
        on.connect(web, f"198.51.100.{number}", 443)
    take(through, on)
    known = {key.peer for key, each in merged(through).behaviours.items() if not each.drift and key.peer}
    assert known == {f"198.51.100.{number}/32" for number in range(4)}
    assert "bounds" in gate(judge(merged(through), GATE))
