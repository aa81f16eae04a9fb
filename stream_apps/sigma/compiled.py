# SPDX-License-Identifier: Apache-2.0
"""From a condition's tree to one closure.

Literals of one field that are looked for alike become one comparison (``str.endswith`` takes a tuple, a set
answers at once), and of several conditions that must all hold the cheapest is asked first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_apps.sigma.tree import All, Either, KeywordLeaf, Negation, OtherLeaf, TextLeaf

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stream_apps.sigma.tree import Node, Test


def compile_node(node: Node) -> Test:
    """A closure that says whether a condition holds."""
    match node:
        case TextLeaf():
            return _text([node])
        case OtherLeaf():
            return node.test
        case KeywordLeaf():
            return _any([compile_node(each) for each in node.tests])
        case Negation():
            inner = compile_node(node.part)
            return lambda values, texts: not inner(values, texts)
        case Either():
            return _any(_merged(_flat(node, Either)))
        case All():
            return _all([compile_node(each) for each in sorted(_flat(node, All), key=cost)])


def cost(node: Node) -> int:
    """About how many text comparisons a condition costs."""
    match node:
        case TextLeaf():
            return 1
        case OtherLeaf():
            return node.cost
        case Negation():
            return cost(node.part)
        case KeywordLeaf(tests=parts) | Either(parts=parts) | All(parts=parts):
            return sum(map(cost, parts))


def _flat(node: Either | All, kind: type[Either | All]) -> Iterable[Node]:
    for each in node.parts:
        if isinstance(each, kind):
            yield from _flat(each, kind)
        else:
            yield each


def _merged(parts: Iterable[Node]) -> list[Test]:
    """One test for the literals of one field and shape; the cheapest first."""
    groups: dict[Any, list[TextLeaf]] = {}
    others: list[Node] = []
    for each in parts:
        if isinstance(each, TextLeaf):
            groups.setdefault((each.slot, each.shape, each.cased), []).append(each)
        else:
            others.append(each)
    merged = [_text(each) for each in groups.values()]
    return merged + [compile_node(each) for each in sorted(others, key=cost)]


def _text(leaves: Sequence[TextLeaf]) -> Test:
    """Whether one of several literals is found; all of one field, shape and case."""
    first = leaves[0]
    literals = tuple(dict.fromkeys(each.literal for each in leaves))
    if first.cased:
        return _cased(first, literals)
    slot = first.slot
    match first.shape:
        case "equals":
            return _equals(slot, literals)
        case "prefix":
            return lambda _, texts: texts[slot].startswith(literals)
        case "suffix":
            return lambda _, texts: texts[slot].endswith(literals)
        case "contains":
            return _contains(slot, literals)


def _equals(slot: int, literals: tuple[str, ...]) -> Test:
    if len(literals) == 1:
        literal = literals[0]
        return lambda _, texts: texts[slot] == literal
    known = frozenset(literals)
    return lambda _, texts: texts[slot] in known


def _contains(slot: int, literals: tuple[str, ...]) -> Test:
    if len(literals) == 1:
        literal = literals[0]
        return lambda _, texts: literal in texts[slot]

    def contains(_: list[Any], texts: list[str]) -> bool:
        text = texts[slot]
        for each in literals:  # noqa: SIM110 - any() with a generator takes three times as long
            if each in text:
                return True
        return False

    return contains


def _cased(first: TextLeaf, literals: tuple[str, ...]) -> Test:
    slot, shape = first.slot, first.shape

    def holds(values: list[Any], _: list[str]) -> bool:
        value = values[slot]
        if value is None:
            return False
        text = str(value)
        if shape == "equals":
            return text in literals
        if shape == "prefix":
            return text.startswith(literals)
        return text.endswith(literals) if shape == "suffix" else any(each in text for each in literals)

    return holds


def _any(tests: list[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:  # noqa: PLR2004 - a pair
        one, two = tests
        return lambda values, texts: one(values, texts) or two(values, texts)

    def one_holds(values: list[Any], texts: list[str]) -> bool:
        for test in tests:  # noqa: SIM110 - any() with a generator takes three times as long
            if test(values, texts):
                return True
        return False

    return one_holds


def _all(tests: list[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:  # noqa: PLR2004 - a pair
        one, two = tests
        return lambda values, texts: one(values, texts) and two(values, texts)

    def all_hold(values: list[Any], texts: list[str]) -> bool:
        for test in tests:  # noqa: SIM110 - all() with a generator takes three times as long
            if not test(values, texts):
                return False
        return True

    return all_hold
