# SPDX-License-Identifier: Apache-2.0
"""Conditions over selections: and, or, not, quantifiers, lists, keywords."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.sigma import matches, refusal

PARTS: dict[str, Any] = {
    "selection_a": {"CommandLine|contains": "a"},
    "selection_b": {"CommandLine|contains": "b"},
    "filter": {"CommandLine|contains": "x"},
}


@pytest.mark.parametrize(
    ("condition", "hits", "misses"),
    [
        ("selection_a and selection_b", ["ab"], ["a", "b", ""]),
        ("selection_a or selection_b", ["a", "b"], ["c"]),
        ("selection_a and not filter", ["a"], ["ax", "x"]),
        ("not selection_a", ["b"], ["a"]),
        ("not (selection_a or selection_b)", ["c"], ["a", "b"]),
        ("selection_a or selection_b and filter", ["a", "bx"], ["b", "x"]),
        ("1 of selection_*", ["a", "b"], ["x"]),
        ("all of selection_*", ["ab"], ["a"]),
        ("1 of selection_* and not 1 of filter*", ["a"], ["ax"]),
        ("1 of them", ["x"], ["c"]),
        ("all of them", ["abx"], ["ab"]),
        ("any of selection_*", ["b"], ["c"]),
        (["selection_a", "filter"], ["a", "x"], ["b"]),
    ],
)
def test_conditions(condition: Any, hits: list[str], misses: list[str]) -> None:
    detection = {**PARTS, "condition": condition}
    for line in hits:
        assert matches(detection, {"CommandLine": line}), line
    for line in misses:
        assert not matches(detection, {"CommandLine": line}), line


def test_fields_of_a_selection_must_all_match() -> None:
    detection = {"s": {"Image|endswith": "/nc", "CommandLine|contains": "-e"}, "condition": "s"}
    assert matches(detection, {"Image": "/bin/nc", "CommandLine": "nc -e"})
    assert not matches(detection, {"Image": "/bin/nc", "CommandLine": "nc"})
    assert not matches(detection, {"Image": "/bin/ncat", "CommandLine": "-e"})


def test_of_a_list_of_selections_one_must_match() -> None:
    detection = {"s": [{"Image|endswith": "/nc"}, {"CommandLine|contains": "-e"}], "condition": "s"}
    assert matches(detection, {"Image": "/bin/nc"})
    assert matches(detection, {"CommandLine": "x -e"})
    assert not matches(detection, {"Image": "/bin/cat", "CommandLine": "cat"})


@pytest.mark.parametrize("keywords", [["evil", "bad"], "evil", {"|all": ["evil", "/bin"]}])
def test_keywords_are_looked_for_in_every_field(keywords: Any) -> None:
    detection = {"keywords": keywords, "condition": "keywords"}
    assert matches(detection, {"ParentCommandLine": "an EVIL thing", "Image": "/bin/x"})
    assert not matches(detection, {"ParentCommandLine": "a thing", "Image": "/bin/x"})


def test_a_keyword_lies_within_one_field() -> None:
    detection = {"keywords": ["one*two"], "condition": "keywords"}
    assert matches(detection, {"CommandLine": "one and two"})
    assert not matches(detection, {"CommandLine": "one", "ParentCommandLine": "two"})


def test_keywords_with_numbers_and_expressions() -> None:
    assert matches({"k": [4444], "condition": "k"}, {"DestinationPort": 4444}, "network_connection")
    assert matches({"k": {"|re": "ev.l"}, "condition": "k"}, {"CommandLine": "x evul"})
    assert not matches({"k": {"|re": "ev.l"}, "condition": "k"}, {"CommandLine": "x ev"})


@pytest.mark.parametrize(
    ("detection", "reason"),
    [
        ({"s": {"Image": "x"}, "condition": "s and t"}, "'t' not defined"),
        ({"s": {"Image": "x"}, "condition": "s and"}, "Expected"),
        ({"s": {"Image": "x"}, "condition": "s | count() > 5"}, "replaced by Sigma correlations"),
        ({"s": {"Image": "x"}, "condition": "1 of t*"}, "doesn't match any detection"),
        ({"s": {"Image": "x"}, "timeframe": "5m", "condition": "s"}, "write a correlation"),
        ({"s": {"Image": "x"}}, "at least one condition"),
        ({"condition": "s"}, "No detections"),
        ({"s": {}, "condition": "s"}, "empty"),
        ({"s": {"Image": {"a": "b"}}, "condition": "s"}, "Unsupported type"),
    ],
)
def test_what_is_no_condition_is_refused(detection: dict[str, Any], reason: str) -> None:
    assert reason in refusal(detection)
