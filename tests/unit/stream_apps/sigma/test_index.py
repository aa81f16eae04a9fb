# SPDX-License-Identifier: Apache-2.0
"""The index finds every rule that matches, and asks few others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stream_apps.sigma.compiled import compile_node
from stream_apps.sigma.index import RuleIndex
from stream_apps.sigma.tree import OtherLeaf
from tests.support.sigma import document, facts, identity, loaded, one, rule_id

_WORDS = st.sampled_from(["ab", "Ba", "/bin/a", "c*d", "x?", "/a", "aB c", "", "*", "443"])
_FIELDS = st.sampled_from([
    "Image|endswith", "Image", "CommandLine|contains", "CommandLine|contains|all", "ParentImage|endswith",
    "CommandLine|re", "CommandLine|startswith|cased", "DestinationPort", "DestinationHostname",
])  # fmt: skip


def _written(item: tuple[str, list[str]]) -> tuple[str, list[str]]:
    """An item whose values are expressions where the field wants some."""
    field, values = item
    if field.endswith("|re"):
        values = [each.replace("*", ".").replace("?", ".") for each in values]
    return field, values


_ITEM = st.tuples(_FIELDS, st.lists(_WORDS, min_size=1, max_size=3)).map(_written)
_SELECTION = st.one_of(
    st.lists(_ITEM, min_size=1, max_size=2).map(dict), st.lists(_WORDS.filter(bool), min_size=1, max_size=2)
)
_DETECTION = st.fixed_dictionaries({
    "a": _SELECTION, "b": _SELECTION,
    "condition": st.sampled_from(["a", "a and b", "a or b", "a and not b", "not a", "not a or b",
                                  "1 of them"]),
})  # fmt: skip
_EVENT = st.fixed_dictionaries({}, optional={
    "Image": st.sampled_from(["/bin/a", "/usr/bin/AB", "ab", "/"]), "CommandLine": st.text("aAbBcd /x4"),
    "ParentImage": st.sampled_from(["/bin/a", "/bin/sh"]), "DestinationPort": st.sampled_from([443, 44]),
    "DestinationHostname": st.sampled_from(["ab", "c.d"]),
})  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(_DETECTION, min_size=1, max_size=6), st.lists(_EVENT, min_size=1, max_size=6))
def test_the_index_finds_what_asking_all_rules_finds(
    detections: list[dict[str, Any]], events: list[dict[str, Any]]
) -> None:
    written = [
        document(each, "network_connection", id=identity(str(number)))
        for number, each in enumerate(detections)
    ]
    found = loaded(*written)
    assert all(each.status == "loaded" for each in found.verdicts)
    index = found.rules.indexes["nsp.SocketConnect"]
    for event in events:
        told = facts(event)
        asked = [each for each in index.rules if compile_node(each.condition)(*told)]
        assert index.matches(told) == asked


def test_an_ordinary_event_asks_hardly_any_rule() -> None:
    tools = [f"tool{number}" for number in range(200)]
    written = [
        document(
            {
                "s": {"Image|endswith": f"/{tool}", "CommandLine|contains": [" -c ", "/etc/"]},
                "condition": "s",
            },
            id=identity(tool),
        )
        for tool in tools
    ]
    index = loaded(*written).rules.indexes["nsp.ProcessExec"]
    assert index.unindexed == 0
    assert not set(index.candidates(facts({"Image": "/bin/sh", "CommandLine": "sh -c 'cat /etc/hosts'"})))
    told = facts({"Image": "/opt/tool7", "CommandLine": "tool7 /etc/hosts"})
    assert [index.rules[each].rule.id for each in index.candidates(told)] == [rule_id("tool7")]


def test_a_rule_of_negations_is_asked_always() -> None:
    rule = one({"s": {"Image": "/bin/sh"}, "condition": "not s"})
    index = RuleIndex([rule])
    assert index.unindexed == 1
    assert index.matches(facts({"Image": "/bin/ls"})) == [rule]


def test_a_rule_that_raises_is_counted_and_the_others_are_asked() -> None:
    def fails(*_: Any) -> bool:
        raise ValueError("broken")

    good = one({"s": {"Image": "/bin/sh"}, "condition": "s"})
    bad = replace(good, condition=OtherLeaf(0, fails), rule=replace(good.rule, id="bad"))
    index = RuleIndex([bad, good])
    for _ in range(3):
        assert index.matches(facts({"Image": "/bin/sh"})) == [good]
    assert index.errors == {"bad": 3}
