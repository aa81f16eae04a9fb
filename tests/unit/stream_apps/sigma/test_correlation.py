# SPDX-License-Identifier: Apache-2.0
"""Correlations: what holds when, per group, and within bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stream_apps.sigma.correlation import Correlator
from tests.support.sigma import document, facts, identity, loaded, rule_id

if TYPE_CHECKING:
    from collections.abc import Mapping

SECOND = 1_000_000_000
MINUTE = 60 * SECOND


def rule(name: str, category: str = "network_connection") -> dict[str, Any]:
    item = {"CommandLine|contains": name}
    return document(
        {"s": item, "condition": "s"}, category, id=identity(name), name=name, title=f"Rule {name}"
    )


def correlation(kind: str, rules: list[str], condition: Any = None, **fields: Any) -> dict[str, Any]:
    section = {"type": kind, "rules": rules, "timespan": "1m", "group-by": ["Image"], **fields}
    if condition is not None:
        section["condition"] = condition
    return {"title": "Together", "id": identity(f"{kind} {rules}"), "level": "high", "correlation": section}


class Watch:
    """A correlation and its rules ``a``, ``b`` and ``c``, fed match by match."""

    def __init__(self, written: Mapping[str, Any], **bounds: int) -> None:
        found = loaded(rule("a"), rule("b"), rule("c"), written)
        assert [each.reason for each in found.verdicts] == [""] * 4
        (parsed,) = found.rules.correlations
        self.correlator = Correlator(parsed, **bounds)

    def sees(
        self, name: str, second: float, image: str | None = "/bin/x", node: str = "n", **more: Any
    ) -> bool:
        event = facts({"Image": image, **more})
        return self.correlator.take(node, rule_id(name), event, int(second * SECOND))


def test_events_are_counted_within_the_time() -> None:
    watch = Watch(correlation("event_count", ["a"], {"gte": 3}))
    assert [watch.sees("a", at) for at in (0, 30, 61, 70)] == [False, False, False, True]


def test_what_has_fired_begins_anew() -> None:
    watch = Watch(correlation("event_count", ["a"], {"gt": 1}))
    assert [watch.sees("a", at) for at in (0, 1, 2, 3)] == [False, True, False, True]
    assert len(watch.correlator) == 0


def test_groups_and_nodes_are_counted_by_themselves() -> None:
    watch = Watch(correlation("event_count", ["a"], {"gte": 2}))
    assert not watch.sees("a", 0, "/bin/x")
    assert not watch.sees("a", 1, "/bin/y")
    assert not watch.sees("a", 2, "/bin/x", node="m")
    assert watch.sees("a", 3, "/bin/x")


def test_a_match_without_the_field_of_its_group_counts_nowhere() -> None:
    watch = Watch(correlation("event_count", ["a"], {"gte": 2}))
    assert not any(watch.sees("a", at, None) for at in range(5))
    assert len(watch.correlator) == 0


def test_different_values_are_counted() -> None:
    watch = Watch(correlation("value_count", ["a"], {"gte": 3, "field": "DestinationPort"}))
    ports = [1, 2, 1, 2, 3]
    assert [watch.sees("a", at, DestinationPort=port) for at, port in enumerate(ports)] == [False] * 4 + [
        True
    ]


def test_values_that_were_seen_too_long_ago_do_not_count() -> None:
    watch = Watch(correlation("value_count", ["a"], {"gte": 3, "field": "DestinationPort"}))
    seen = [(0, 1), (30, 2), (61, 3), (62, 1), (200, 2)]
    assert [watch.sees("a", at, DestinationPort=port) for at, port in seen] == [
        False,
        False,
        False,
        True,
        False,
    ]
    assert not watch.sees("a", 201)


def test_rules_match_together_in_any_order() -> None:
    watch = Watch(correlation("temporal", ["a", "b", "c"]))
    assert [watch.sees(name, at) for at, name in enumerate("cab")] == [False, False, True]
    assert [watch.sees(name, at) for at, name in ((100, "a"), (101, "b"), (162, "c"))] == [False] * 3


def test_some_of_the_rules_may_be_enough() -> None:
    watch = Watch(correlation("temporal", ["a", "b", "c"], {"gte": 2}))
    assert [watch.sees(name, at) for at, name in enumerate("aac")] == [False, False, True]


@pytest.mark.parametrize(
    ("order", "times", "holds"),
    [
        ("abc", (0, 1, 2), True),
        ("acb", (0, 1, 2), False),
        ("cba", (0, 1, 2), False),
        ("abc", (0, 30, 61), False),
        ("aabc", (0, 30, 40, 61), True),
        ("abac", (0, 1, 2, 3), True),
        ("babc", (0, 1, 2, 3), True),
        ("abbc", (0, 30, 61, 62), False),
    ],
)
def test_rules_match_in_order(order: str, times: tuple[int, ...], holds: bool) -> None:
    watch = Watch(correlation("temporal_ordered", ["a", "b", "c"]))
    found = [watch.sees(name, at) for name, at in zip(order, times, strict=True)]
    assert found == [False] * (len(order) - 1) + [holds]


def test_one_match_takes_one_place_in_an_order() -> None:
    watch = Watch(correlation("temporal_ordered", ["a", "b", "a"], {"gte": 2}))
    assert [watch.sees(name, at) for at, name in enumerate("aba")] == [False, False, True]


def test_groups_are_bounded_and_the_quietest_is_forgotten() -> None:
    watch = Watch(correlation("event_count", ["a"], {"gte": 2}), max_groups=2)
    for at, image in enumerate(["/1", "/2", "/3"]):
        watch.sees("a", at, image)
    assert (len(watch.correlator), watch.correlator.evicted) == (2, 1)
    assert not watch.sees("a", 4, "/1")
    assert watch.sees("a", 5, "/3")


def test_entries_are_bounded_over_all_groups() -> None:
    watch = Watch(correlation("event_count", ["a"], {"gte": 100}), max_entries=10)
    for at in range(30):
        watch.sees("a", at, f"/{at % 3}")
    kept = sum(len(each) for each in watch.correlator._groups.values())
    assert kept <= 10
    assert watch.correlator.evicted


def test_aliases_name_one_thing_in_two_kinds_of_events() -> None:
    written = correlation("temporal", ["asked", "went"], **{
        "group-by": ["name"],
        "aliases": {"name": {"asked": "QueryName", "went": "DestinationHostname"}},
    })  # fmt: skip
    found = loaded(rule("asked", "dns_query"), rule("went"), written)
    assert [each.reason for each in found.verdicts] == ["", "", ""]
    watch = Correlator(found.rules.correlations[0])
    assert not watch.take("n", rule_id("asked"), facts({"QueryName": "a.example"}), 0)
    assert not watch.take("n", rule_id("went"), facts({"DestinationHostname": "b.example"}), 1)
    assert watch.take("n", rule_id("went"), facts({"DestinationHostname": "a.example"}), 2)


def test_rules_of_a_correlation_are_silent_unless_it_says_otherwise() -> None:
    for generate, alerts in ((False, [False, True, True]), (True, [True, True, True])):
        written = correlation("event_count", ["a"], {"gte": 2}, generate=generate)
        found = loaded(rule("a"), rule("b"), rule("c"), written)
        assert [each.alerts for each in found.rules.rules] == alerts


def test_members_are_found_by_id_and_in_any_file() -> None:
    written = correlation("event_count", [identity("a")], {"gte": 2})
    assert [each.status for each in loaded(written, rule("a")).verdicts] == ["loaded", "loaded"]


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (correlation("event_count", ["z"], {"gte": 2}), "no rule z was loaded"),
        (correlation("event_count", ["a"], {"lt": 2}), "a stream never knows"),
        (correlation("event_count", ["a"], {"eq": 2}), "a stream never knows"),
        (correlation("event_count", ["a"], {"gte": 0}), "0 is not between"),
        (correlation("event_count", ["a"], {"gte": 10**6}), "is not between"),
        (correlation("event_count", ["a"]), "without condition"),
        (correlation("value_count", ["a"], {"gte": 2}), "without field reference"),
        (
            correlation("value_count", ["a"], {"gte": 2, "field": "QueryName"}),
            "not in events of this category",
        ),
        (correlation("value_avg", ["a"], {"gte": 2, "field": "DestinationPort"}), "of type value_avg"),
        (correlation("temporal", ["a", "b"], {"gte": 3}), "can never match"),
        (correlation("temporal_ordered", ["a", "b"], {"gte": 1}), "in order, all rules must match"),
        (correlation("temporal", ["a", "b"], "a and not b"), "with and, or and not"),
        (correlation("event_count", ["a"], {"gte": 2}, timespan="2d"), "more than 86400 s"),
        (correlation("event_count", ["a"], {"gte": 2}, timespan="soon"), "Timespan 'soon' is invalid"),
        (correlation("event_count", ["a"], {"gte": 2}, **{"group-by": ["Nothing"]}), "has a field Nothing"),
        (
            correlation("event_count", ["a"], {"gte": 2}, aliases={"Image": {"b": "Image"}}),
            "says nothing of a",
        ),
        (correlation("event_count", [], {"gte": 2}), "names no rules"),
        (correlation("nothing", ["a"], {"gte": 2}), "no valid Sigma correlation type"),
    ],
)
def test_what_cannot_be_watched_is_refused(written: dict[str, Any], reason: str) -> None:
    verdict = loaded(rule("a"), rule("b"), written).verdicts[-1]
    assert verdict.status == "refused"
    assert reason in verdict.reason
