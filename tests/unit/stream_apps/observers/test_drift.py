# SPDX-License-Identifier: Apache-2.0
"""nsp.drift: what a baseline denies is told, what it does not know is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.batches import SECOND, Node
from tests.support.learned import Learned
from tests.support.stream import rules, run, whole_pipeline

if TYPE_CHECKING:
    from stream_apps.detect.baseline import Baseline
    from stream_apps.pipeline import Pipeline

RULE = "nsp.drift"


def told(node: Node, through: Pipeline) -> list[tuple[str, str]]:
    return [
        (each["severity"], each["evidence"][0]["summary"])
        for each in run(node, through).alerts
        if each["rule_id"] == RULE
    ]


def act(node: Node, way: str) -> None:
    service = node.service("/usr/sbin/nginx")
    if way == "executable":
        node.spawn(service, "/usr/bin/id")
    elif way == "destination":
        node.connect(service, "10.9.9.9", 5432)
    elif way == "refused":
        node.refuse(service, "10.9.9.9", 5432)
    else:
        node.listen(service, 8081)


@pytest.mark.parametrize(
    ("way", "value"),
    [
        ("executable", "/usr/bin/id"), ("destination", "10.9.9.9:5432"), ("refused", "10.9.9.9:5432"),
        ("listen", "8081"),
    ],
)  # fmt: skip
def test_what_was_never_done_is_told_and_what_is_unknown_is_not(way: str, value: str) -> None:
    for answer, count in ((False, 1), (None, 0), (True, 0)):
        node, learned = Node(), Learned(values={value: answer})
        act(node, way)
        assert len(told(node, whole_pipeline(learned))) == count
        assert (node.workloads[1]["id"], "destination" if way == "refused" else way, value) in learned.asked


def test_each_behaviour_has_its_technique() -> None:
    for way, technique in (("executable", "T1059"), ("destination", "T1071"), ("listen", "T1571")):
        node = Node()
        act(node, way)
        alerts = run(node, whole_pipeline(Learned(otherwise=False))).alerts
        assert technique in next(each["attack"] for each in alerts if each["rule_id"] == RULE)


def test_a_destination_is_known_by_its_name_where_a_trusted_resolver_gave_it() -> None:
    for resolvers, value in ((["10.96.0.0/16"], "db.example:5432"), ([], "10.9.9.9:5432")):
        node, learned = Node(), Learned(otherwise=False)
        service = node.service("/usr/sbin/nginx")
        node.answer(service, "db.example", ["10.9.9.9"])
        node.connect(service, "10.9.9.9", 5432)
        through = whole_pipeline(learned, correlate={"names": {"trusted_resolvers": resolvers}})
        assert told(node, through) == [("MEDIUM", f"contacts {value}: never while learned")]


def test_loopback_and_ephemeral_ports_are_no_behaviour() -> None:
    node = Node()
    service = node.service("/usr/sbin/nginx")
    node.connect(service, "127.0.0.1", 5432)
    node.listen(service, 40_000)
    assert told(node, whole_pipeline(Learned(otherwise=False))) == []


def test_each_behaviour_is_told_once_a_day_whoever_shows_it() -> None:
    node, through = Node(), whole_pipeline(Learned(values={"/usr/bin/id": False}))
    for _ in range(5):
        node.spawn(node.service("/usr/sbin/nginx"), "/usr/bin/id")
    assert len(told(node, through)) == 1


def test_without_a_baseline_there_is_nothing_to_tell() -> None:
    baseline: Baseline | None = None
    node = Node()
    act(node, "executable")
    assert RULE not in [rule for rule, _ in rules(run(node, whole_pipeline(baseline)))]


def test_what_is_told_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_apps.detect.drift.MAX_KEPT", 10)
    node, through = Node(), whole_pipeline(Learned(otherwise=False))
    service = node.service("/usr/sbin/nginx")
    for each in range(30):
        node.connect(service, f"10.9.9.{each}", 5432)
    run(node, through)
    assert through.metrics()["detect", "drift_kept_now"] == 10
    assert through.metrics()["detect", "drift_evicted"] == 20


def test_a_baseline_is_asked_once_a_minute_and_not_for_each_connection() -> None:
    node, learned = Node(), Learned(otherwise=None)
    through = whole_pipeline(learned)
    service = node.service("/usr/sbin/nginx")
    for later_s, count in ((0, 1), (30, 1), (40, 2)):
        node.now_ns += later_s * SECOND
        for _ in range(3):
            node.connect(service, "10.9.9.9", 5432)
            run(node, through)
        assert [kind for _, kind, _ in learned.asked].count("destination") == count
