# SPDX-License-Identifier: Apache-2.0
"""nsp.sensor-silence: nodes that stop, sensors that lose, batches that never arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_apps.correlate.pods import PodTable
from stream_apps.pipeline import Pipeline
from tests.support.batches import SECOND, Node, pod_record
from tests.support.stream import whole_config

if TYPE_CHECKING:
    import pytest

RULE = "nsp.sensor-silence"


def pipeline(**fields: Any) -> Pipeline:
    pods = PodTable()
    pods.put(pod_record())
    return Pipeline(whole_config(**fields), pods)


def beat(through: Pipeline, *nodes: Node, arrived_ns: int | None = None) -> list[dict[str, Any]]:
    """A batch of each node."""
    told = []
    for node in nodes:
        node.add("ProcessExit", 0, exit_status=0, signal=0)
        told += through.process(node.batch(), arrived_ns or node.wall_ns).alerts
    return [each for each in told if each["rule_id"] == RULE]


def pair() -> tuple[Node, Node]:
    return Node(name="worker-1"), Node(name="worker-2")


def pass_time(seconds: int, *nodes: Node) -> None:
    for each in nodes:
        each.now_ns += seconds * SECOND


def test_a_node_that_stops_while_another_goes_on_is_told_once() -> None:
    through, (first, second) = pipeline(), pair()
    beat(through, first, second)
    [alert] = without(through, first, second, 1800)
    assert (alert["rule_id"], alert["severity"], alert["node"]) == (RULE, "HIGH", "worker-1")
    assert "has sent nothing for 600 s while others went on; 1 pods are known there" in alert["description"]
    assert alert["workload"]["id"] == "host/worker-1/"
    assert alert["response"]["decision"] == "none"


def without(through: Pipeline, absent: Node, present: Node, seconds: int = 700) -> list[dict[str, Any]]:
    """One node goes on, the other does not; what is told."""
    told = []
    for _ in range(seconds // 10):
        pass_time(10, absent, present)
        beat(through, present)
        told += through.tick(present.wall_ns).alerts
    return told


def test_a_node_without_pods_may_be_gone() -> None:
    through, (first, second) = pipeline(), pair()
    beat(through, first, second)
    [alert] = without(through, second, first)
    assert (alert["node"], alert["severity"]) == ("worker-2", "LOW")


def test_all_nodes_silent_is_a_broker_and_not_a_sensor_and_then_each_has_its_while_anew() -> None:
    through, (first, second) = pipeline(), pair()
    beat(through, first, second)
    assert through.tick(first.wall_ns + 7200 * SECOND).alerts == []
    pass_time(7200, first, second)
    assert without(through, second, first, 590) == []
    assert len(without(through, second, first, 30)) == 1


def test_neither_a_clock_ahead_nor_a_backlog_is_a_silence() -> None:
    """Old batches of one node arrive late, another's clock is a year ahead."""
    through, (first, second) = pipeline(), pair()
    second.now_ns += 365 * 86_400 * SECOND
    now_ns = first.wall_ns + 3600 * SECOND
    for _ in range(200):
        beat(through, first, second, arrived_ns=now_ns)
        pass_time(1, first)
        now_ns += 10 * SECOND
        assert through.tick(now_ns).alerts == []


def test_a_node_that_comes_back_is_watched_again_and_one_of_another_process_is_not() -> None:
    through, (first, second) = pipeline(), pair()
    for _ in range(2):
        beat(through, first, second)
        assert len(without(through, first, second)) == 1
    beat(through, first)
    through.takes(lambda node: node == "worker-2")
    assert without(through, first, second) == []
    assert through.metrics()["detect", "sensor_silence_nodes_now"] == 1


def test_losses_are_told_when_they_are_many_and_a_share() -> None:
    for lost, seen, count in ((999, 0, 0), (1000, 0, 1), (1000, 120_000, 0)):
        through, node = pipeline(), Node()
        beat(through, node)
        for _ in range(seen):
            node.add("ProcessExit", 0, exit_status=0, signal=0)
        node.lose(lost)
        told = beat(through, node)
        assert len(told) == count
        if told:
            assert told[0]["severity"] == "MEDIUM"
            assert "lost 1000 events within a minute" in told[0]["description"]


def test_what_was_lost_before_we_listened_is_no_news_and_a_flood_is_told_once_a_window() -> None:
    through, node = pipeline(), Node()
    node.lose(100_000)
    assert beat(through, node) == []
    counts = []
    for _ in range(15):
        node.lose(5000)
        counts.append(len(beat(through, node)))
        pass_time(60, node)
    assert sum(counts) == 2


def test_batches_that_never_arrive_are_told() -> None:
    through, node = pipeline(), Node()
    beat(through, node)
    node.add("ProcessExit", 0, exit_status=0, signal=0)
    node.batch()
    [alert] = beat(through, node)
    assert alert["severity"] == "MEDIUM"
    assert "never arrived" in alert["description"]


def test_what_another_process_read_meanwhile_is_not_missing() -> None:
    through, node = pipeline(), Node()
    beat(through, node)
    through.takes(lambda _: False)
    node.add("ProcessExit", 0, exit_status=0, signal=0)
    node.batch()
    assert beat(through, node) == []


def test_the_same_batches_give_the_same_ids_and_a_repeated_one_none() -> None:
    node = Node()
    node.add("ProcessExit", 0, exit_status=0, signal=0)
    first = node.batch()
    node.lose(5000)
    node.add("ProcessExit", 0, exit_status=0, signal=0)
    second = node.batch()
    ids = []
    for _ in range(2):
        through = pipeline()
        told = [alert for batch in (first, second) for alert in through.process(batch, 0).alerts]
        ids.append([each["id"] for each in told])
        assert through.process(first, 0).alerts == []
    assert ids[0] == ids[1] != []


def test_nodes_are_bounded_and_the_rule_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_apps.detect.sensor_silence.MAX_NODES", 3)
    through = pipeline()
    for each in range(10):
        beat(through, Node(name=f"worker-{each}"))
    assert through.metrics()["detect", "sensor_silence_nodes_now"] == 3
    assert through.metrics()["detect", "sensor_silence_evicted"] == 7
    off = pipeline(detect={RULE: {"enabled": False}})
    beat(off, Node())
    assert ("detect", "sensor_silence_nodes_now") not in off.metrics()
    off.takes(lambda _: False)


def test_losses_of_a_batch_that_comes_again_are_not_counted_again() -> None:
    through, node = pipeline(), Node()
    node.add("ProcessExit", 0, exit_status=0, signal=0)
    first = node.batch()
    node.lose(600)
    node.add("ProcessExit", 0, exit_status=0, signal=0)
    second = node.batch()
    for batch in (first, second, first, second, second):
        assert [each["rule_id"] for each in through.process(batch, 0).alerts] == []
