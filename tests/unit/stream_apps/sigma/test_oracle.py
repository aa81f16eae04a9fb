# SPDX-License-Identifier: Apache-2.0
"""Our engine against azuma, which shares no code with it: the same rules and events, the same answers.

Generated rules over generated events; and, where NSP_SIGMA_RULES names a directory such as SigmaHQ's
``rules``, every rule of it that loads, over events made from its own literals. Where azuma is wrong it is
left out, and a test below shows each of its faults, with the answer that Sigma's specification wants.
"""

from __future__ import annotations

import os
import random
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml
from azuma.schemas import Rule as Oracle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_apps.sigma import taxonomy
from stream_apps.sigma.loading import files_of, load
from tests.support.sigma import AROUND, document, facts, loaded, matches

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RULES: Final = os.environ.get("NSP_SIGMA_RULES", "")
_LETTERS: Final = "aAbé/ -.1("
_PATHS: Final = ["/bin/sh", "/usr/bin/curl", "/usr/bin/b", "/opt/A b/a", "/a"]
_TEXT: Final = st.text(_LETTERS, min_size=1, max_size=4)
_PATTERN: Final = st.text(_LETTERS + "*?", min_size=1, max_size=5)
_ADDRESSES: Final = ["10.0.0.1", "10.200.3.4", "192.168.7.9", "8.8.8.8", "127.0.0.1"]
_NETWORKS: Final = ["10.0.0.0/8", "10.128.0.0/9", "192.168.7.8/30", "127.0.0.1/32", "0.0.0.0/0"]
_TEXT_FIELDS: Final = st.sampled_from([
    "CommandLine", "ParentCommandLine", "Image", "ParentImage", "DestinationHostname",
])  # fmt: skip


def _event() -> st.SearchStrategy[dict[str, Any]]:
    paths, lines = st.sampled_from(_PATHS), st.text(_LETTERS, max_size=8)
    optional: Mapping[str, st.SearchStrategy[Any]] = {
        "Image": paths, "ParentImage": paths, "CommandLine": lines, "ParentCommandLine": lines,
        "DestinationHostname": lines, "DestinationIp": st.sampled_from(_ADDRESSES),
        "DestinationPort": st.integers(1, 5), "Initiated": st.sampled_from(["true", "false"]),
        "Protocol": st.sampled_from(["tcp", "udp"]),
    }  # fmt: skip
    return st.fixed_dictionaries({}, optional=dict(optional))


def _items() -> st.SearchStrategy[tuple[str, Any]]:
    """A field with modifiers, and its values; without what azuma gets wrong."""
    comparisons = ["", "|contains", "|startswith", "|endswith"]
    ways = st.sampled_from([*comparisons, *(f"{each}|cased" for each in comparisons if each)])
    listed = st.lists(_PATTERN, min_size=1, max_size=3)
    text = st.builds(lambda f, way, v: (f + way, v), _TEXT_FIELDS, ways, listed)
    every = st.builds(lambda f, v: (f"{f}|contains|all", v), _TEXT_FIELDS, listed)
    path = st.tuples(
        st.sampled_from(["Image|endswith", "ParentImage|endswith", "Image"]),
        st.lists(st.sampled_from([*_PATHS, "/sh", "/CURL", "bin/b"]), min_size=1, max_size=3),
    )
    number = st.tuples(st.just("DestinationPort"), st.lists(st.integers(1, 5), min_size=1, max_size=3))
    order = st.tuples(
        st.sampled_from(["|lt", "|lte", "|gt", "|gte"]).map(lambda m: f"DestinationPort{m}"),
        st.integers(0, 6),
    )
    network = st.tuples(st.just("DestinationIp|cidr"), st.sampled_from(_NETWORKS))
    flag = st.tuples(st.just("Initiated"), st.sampled_from(["true", "false", "True"]))
    null = st.tuples(_TEXT_FIELDS, st.none())
    exists = st.tuples(_TEXT_FIELDS.map(lambda f: f"{f}|exists"), st.booleans())
    expression = st.builds(
        lambda f, flags, a, b: (f"{f}|re{flags}", f"(?s).*{re.escape(a)}[a-b]?{re.escape(b)}"),
        _TEXT_FIELDS, st.sampled_from(["", "|i", "|s"]), _TEXT, _TEXT,
    )  # fmt: skip
    return st.one_of(text, every, path, number, order, network, flag, null, exists, expression)


def _selection() -> st.SearchStrategy[Any]:
    mapping = st.lists(_items(), min_size=1, max_size=3).map(dict)
    return st.one_of(
        mapping, st.lists(mapping, min_size=1, max_size=2), st.lists(_TEXT, min_size=1, max_size=2)
    )


_CONDITIONS: Final = (
    "selection_a", "selection_a and selection_b", "selection_a or filter", "selection_a and not filter",
    "not selection_a", "1 of selection_*", "1 of them", "not 1 of filter*",
    "(selection_a or filter) and selection_b", "selection_a and not (filter or selection_b)",
    "not selection_a and not selection_b",
)  # fmt: skip


def _oracle(written: Mapping[str, Any]) -> Oracle:
    return Oracle.model_validate(yaml.safe_load(yaml.safe_dump(dict(written))))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.fixed_dictionaries({"selection_a": _selection(), "selection_b": _selection(), "filter": _selection()}),
    st.sampled_from(_CONDITIONS),
    st.lists(_event(), min_size=1, max_size=12),
)
def test_generated_rules_over_generated_events(
    parts: dict[str, Any], condition: str, events: list[dict[str, Any]]
) -> None:
    written = document({**parts, "condition": condition}, "network_connection")
    found = loaded(written)
    assert [each.reason for each in found.verdicts] == [""]
    index = found.rules.indexes["nsp.SocketConnect"]
    oracle = _oracle(written)
    for event in events:
        assert bool(index.matches(facts(event))) == oracle.match(event), (written["detection"], event)
    assert not index.errors


@pytest.mark.parametrize(
    ("fault", "item", "event", "right"),
    [
        ("an expression is found anywhere, not only at the beginning",
         {"CommandLine|re": "url"}, {"CommandLine": "curl"}, True),
        ("an expression's dot does not match a line's end unless s is given, also for what comes before it",
         {"CommandLine|re": "b"}, {"CommandLine": "a\nb"}, True),
        ("$ is the end, not the place before a last line feed",
         {"CommandLine|endswith": "a"}, {"CommandLine": "a\n"}, False),
        ("an empty text is a value", {"CommandLine": ""}, {"CommandLine": ""}, True),
        ("a backslash stands for itself", {"CommandLine": "a\\b"}, {"CommandLine": "a\\b"}, True),
        ("two backslashes before no wildcard stand for one",
         {"CommandLine": "a\\\\b*"}, {"CommandLine": "a\\bc"}, True),
        ("cased compares the whole text", {"CommandLine|cased": "a"}, {"CommandLine": "ab"}, False),
        ("texts in Base64 are compared like all texts, without case",
         {"CommandLine|base64|contains": "secret"}, {"CommandLine": "C2VJCMV0"}, True),
        ("each dash of windash stands for itself",
         {"CommandLine|windash|contains": " -a -b "}, {"CommandLine": "x -a /b y"}, True),
    ],
)  # fmt: skip
def test_faults_of_the_oracle(fault: str, item: dict[str, Any], event: dict[str, Any], right: bool) -> None:
    detection = {"s": item, "condition": "s"}
    assert matches(detection, event) is right, fault
    assert _oracle(document(detection)).match(event) is not right, "mended: put it into the generated rules"


def test_all_of_them_asks_for_one_keyword_of_a_list() -> None:
    # azuma wants every keyword of a list as soon as the condition says "all of".
    detection = {
        "keywords": ["one", "two"],
        "other": {"CommandLine|contains": "o"},
        "condition": "all of them",
    }
    assert matches(detection, {"CommandLine": "one"})
    assert not _oracle(document(detection)).match({"CommandLine": "one"})


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for each in node.values():
            yield from _texts(each)
    elif isinstance(node, list):
        for each in node:
            yield from _texts(each)
    elif node is not None:
        yield str(node)


def _values(content: Mapping[str, Any]) -> dict[str, list[str]]:
    """What a rule's selections compare each field with."""
    values: dict[str, list[str]] = {}
    for key, part in content["detection"].items():
        for selection in part if isinstance(part, list) else [part]:
            if key != "condition" and isinstance(selection, dict):
                for name, value in selection.items():
                    values.setdefault(name.partition("|")[0], []).extend(_texts(value))
    return {name: texts for name, texts in values.items() if texts}


def _around(texts: list[str], dice: random.Random) -> str:
    """Some of the values joined, and something before, between and behind them."""
    picked = dice.sample(texts, dice.randint(1, len(texts)))
    text = dice.choice(["", "x", " "]).join(picked).replace("*", dice.choice(["", "z"])).replace("?", "q")
    text = dice.choice(["", "", "/usr/bin", "x"]) + text + dice.choice(["", "", "x"])
    return text.swapcase() if dice.random() < 0.2 else text


def _corpus(content: Mapping[str, Any], dice: random.Random) -> Iterator[dict[str, Any]]:
    """Events around a rule: its own values, as they are, joined, changed, and one left out."""
    values = _values(content)
    keywords = [each for part in content["detection"].values() if isinstance(part, list) for each in part]
    for _ in range(60):
        event: dict[str, Any] = {"Image": "/usr/bin/id", "CommandLine": "id -u"}
        event |= {name: _around(texts, dice) for name, texts in values.items()}
        if keywords and isinstance(keywords[0], str):
            event["CommandLine"] = dice.choice(["a ", ""]) + dice.choice(keywords)
        if "DestinationPort" in event:
            event["DestinationPort"] = int(dice.choice(values["DestinationPort"]))
        if "DestinationIp" in event:
            event["DestinationIp"] = dice.choice(_ADDRESSES)
        event.pop(dice.choice([*event, ""]), None)
        yield {name: value for name, value in event.items() if name in taxonomy.BY_NAME}


def _agrees(content: Mapping[str, Any], ours: bool, theirs: bool) -> bool:
    """Whether two answers agree, or differ by a fault that is shown above."""
    expressions = any("|re" in key for part in content["detection"].values() for key in _keys(part))
    return ours == theirs or (expressions and ours and not theirs)


def _keys(part: Any) -> Iterator[str]:
    for each in part if isinstance(part, list) else [part]:
        if isinstance(each, dict):
            yield from map(str, each)


@pytest.mark.skipif(not RULES, reason="NSP_SIGMA_RULES names no directory of rules")
def test_all_rules_of_a_directory() -> None:
    dice = random.Random(5)
    compared = hits = 0
    differences = []
    for source, text in files_of(Path(RULES)):
        found = load([(source, text)], AROUND)
        if len(found.rules.rules) != 1:
            continue
        content = yaml.safe_load(text)
        with warnings.catch_warnings(action="ignore"):
            oracle = Oracle.model_validate(yaml.safe_load(text))
        index = next(iter(found.rules.indexes.values()))
        for event in _corpus(content, dice):
            ours, theirs = bool(index.matches(facts(event))), oracle.match(event)
            compared += 1
            hits += ours
            if not _agrees(content, ours, theirs):
                differences.append((source, event, ours))
    print(f"{compared} comparisons, {hits} matches")  # noqa: T201 - shown with -s
    assert not differences, differences[:3]
    assert hits
