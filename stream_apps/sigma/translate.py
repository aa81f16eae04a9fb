# SPDX-License-Identifier: Apache-2.0
"""From a rule that pySigma has parsed to the tree of ``tree``, or a refusal.

Input: pySigma's rule. Output: the stream it is judged on and its condition. Failure:
:class:`RuleRefusedError`, with the place in the document where that is known. What cannot be said of our
events is refused as a whole.
"""

from __future__ import annotations

import difflib
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sigma.conditions import (
    ConditionAND,
    ConditionFieldEqualsValueExpression,
    ConditionNOT,
    ConditionOR,
    ConditionValueExpression,
)
from sigma.exceptions import SigmaError
from sigma.types import (
    CompareOperators,
    SigmaBool,
    SigmaCasedString,
    SigmaCIDRExpression,
    SigmaCompareExpression,
    SigmaExists,
    SigmaExpansion,
    SigmaFieldReference,
    SigmaNull,
    SigmaNumber,
    SigmaRegularExpression,
    SigmaString,
    SigmaTimestampPart,
    SpecialChars,
)

from stream_apps.sigma import taxonomy
from stream_apps.sigma.compiled import compile_node
from stream_apps.sigma.errors import OtherSourceError, RuleRefusedError
from stream_apps.sigma.patterns import either, expression_leaf, network_leaf, number_leaf, text_leaf
from stream_apps.sigma.tree import All, KeywordLeaf, Negation, OtherLeaf, TextLeaf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sigma.rule import SigmaLogSource, SigmaRule
    from sigma.types import Placeholder, SigmaType

    from stream_apps.sigma.taxonomy import Field, Stream
    from stream_apps.sigma.tree import Node

_OPERATORS: Final[dict[CompareOperators, Callable[[Any, Any], bool]]] = {
    CompareOperators.LT: operator.lt,
    CompareOperators.LTE: operator.le,
    CompareOperators.GT: operator.gt,
    CompareOperators.GTE: operator.ge,
    CompareOperators.NEQ: operator.ne,
}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the configuration adds to rules.

    Attributes:
        placeholders: Values of ``%name%`` for the modifier expand.
        users: Names of user ids.
    """

    placeholders: Mapping[str, Sequence[str]]
    users: Mapping[int, str]


def condition_of(rule: SigmaRule, surroundings: Surroundings) -> tuple[Stream, Node]:
    """The stream and the condition of a rule.

    Raises:
        RuleRefusedError: It cannot be said of our events.
    """
    streams = streams_of(rule.logsource)
    if "timeframe" in rule.detection.detections:
        raise RuleRefusedError(
            "timeframe belongs to the old way of counting; write a correlation", ("detection", "timeframe")
        )
    try:
        parsed = [each.parsed for each in rule.detection.parsed_condition]
    except SigmaError as error:
        raise RuleRefusedError(words(error), ("detection", "condition")) from error
    used = {name for each in parsed for name in _fields(each)}
    stream = _stream(streams, used)
    translator = Translator(stream, surroundings)
    return stream, either([translator.node(each) for each in parsed])


def streams_of(source: SigmaLogSource) -> tuple[Stream, ...]:
    """The streams of a log source.

    Raises:
        OtherSourceError: It is another product's or service's.
    """
    place = ("logsource",)
    if source.product not in taxonomy.PRODUCTS:
        raise OtherSourceError(f"for {source.product}; ours are linux, or no product", (*place, "product"))
    if source.service is not None:
        raise OtherSourceError(f"for the log of {source.service}, which we do not read", (*place, "service"))
    category = source.category or ""
    if category not in taxonomy.STREAMS_OF:
        near = difflib.get_close_matches(category, taxonomy.CATEGORIES, n=1, cutoff=0.8)
        if near:
            raise RuleRefusedError(f"no category {category}; did you mean {near[0]}?", (*place, "category"))
        what = f"no events of category {category}" if category else "no category, so for the text of any log"
        raise OtherSourceError(f"{what}; ours are {', '.join(taxonomy.CATEGORIES)}", (*place, "category"))
    return taxonomy.STREAMS_OF[category]


def words(error: Exception) -> str:
    """A pySigma error without the name of the file, which the caller knows."""
    text = str(error.args[0]) if error.args else type(error).__name__
    return " ".join(text.split())


def _fields(node: Any) -> Iterator[str]:
    if isinstance(node, ConditionFieldEqualsValueExpression):
        yield node.field
        if isinstance(node.value, SigmaFieldReference):
            yield node.value.field
    for each in getattr(node, "args", ()):
        yield from _fields(each)


def _stream(streams: tuple[Stream, ...], used: set[str]) -> Stream:
    default = streams[0]
    for name in sorted(used):
        field = taxonomy.BY_NAME.get(name)
        if field is not None and default not in field.streams:
            # Everything the first stream has, the second has too.
            return next((each for each in streams if each in field.streams), default)
    return default


def field_of(stream: Stream, name: str) -> Field:
    """A field of a stream.

    Raises:
        RuleRefusedError: The stream does not have it, and why.
    """
    field = taxonomy.BY_NAME.get(name)
    if field is not None and stream in field.streams:
        return field
    if field is not None:
        raise RuleRefusedError(f"the field {name} is not in events of this category")
    if name in taxonomy.ABSENT:
        raise RuleRefusedError(f"the field {name} is not there: {taxonomy.ABSENT[name]}")
    known = [each.name for each in taxonomy.FIELDS if stream in each.streams]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    cure = f"; did you mean {near[0]}?" if near else ""
    raise RuleRefusedError(f"no event of this category has a field {name}{cure}")


class Translator:
    """Translates conditions for one stream."""

    def __init__(self, stream: Stream, surroundings: Surroundings) -> None:
        self._stream = stream
        self._around = surroundings
        self._slots = sorted({each.slot for each in taxonomy.FIELDS if stream in each.streams})

    def node(self, item: Any) -> Node:
        """The node of pySigma's."""
        match item:
            case ConditionAND():
                return All(tuple(self.node(each) for each in item.args))
            case ConditionOR():
                return either([self.node(each) for each in item.args])
            case ConditionNOT():
                return Negation(self.node(item.args[0]))
            case ConditionFieldEqualsValueExpression():
                return self._field(item.field, item.value)
            case ConditionValueExpression():
                return self._keyword(item.value)
            case _:
                raise RuleRefusedError("the condition is empty", ("detection", "condition"))

    def _field(self, name: str, value: SigmaType) -> Node:
        field = field_of(self._stream, name)
        match value:
            case SigmaExpansion():
                return either([self._field(name, each) for each in value.values])
            case SigmaString() | SigmaRegularExpression() if value.contains_placeholder():
                return either([self._field(name, each) for each in self._expanded(value)])
            case _:
                return self._leaf(field, value)

    def _leaf(self, field: Field, value: SigmaType) -> Node:
        make = next((make for kind, make in _LEAVES if isinstance(value, kind)), None)
        if make is not None:
            return make(field, value)
        if isinstance(value, SigmaFieldReference):
            return self._reference(field.slot, value)
        if isinstance(value, SigmaRegularExpression):
            leaf = expression_leaf(field.slot, value)
            self._check_user(field, leaf, str(value.regexp))
            return leaf
        if isinstance(value, SigmaString):
            leaf = text_leaf(field.slot, value)
            self._check_user(field, leaf, str(value))
            return leaf
        raise RuleRefusedError(f"{type(value).__name__} of {field.name} is not known here")

    def _expanded(self, value: SigmaString | SigmaRegularExpression) -> list[SigmaString]:
        if isinstance(value, SigmaRegularExpression):
            raise RuleRefusedError("a placeholder within an expression; write the values into it")

        def values_of(placeholder: Placeholder) -> Iterator[SigmaString]:
            found = self._around.placeholders.get(placeholder.name)
            if found is None:
                raise RuleRefusedError(
                    f"%{placeholder.name}% has no values; give it some in detect.sigma.placeholders"
                )
            yield from map(SigmaString, found)

        try:
            expanded = value.replace_placeholders(values_of)
        except SigmaError as error:
            raise RuleRefusedError(words(error)) from error
        if isinstance(value, SigmaCasedString):
            expanded = [SigmaCasedString.from_sigma_string(each) for each in expanded]
        if not expanded:
            raise RuleRefusedError("a placeholder without values")
        return expanded

    def _check_user(self, field: Field, leaf: Node, written: str) -> None:
        """A name that no user id has here would never match, and its negation always."""
        if field.kind != "user" or written.isdecimal():
            return
        test = compile_node(leaf)
        for name in self._around.users.values():
            values, texts = [None] * taxonomy.SLOTS, [""] * taxonomy.SLOTS
            values[field.slot], texts[field.slot] = name, name.casefold()  # type: ignore[call-overload] # a list of anything
            if test(values, texts):
                return
        raise RuleRefusedError(
            f"no user id is known by a name like {written!r}; events have numbers: give names in "
            "detect.sigma.users"
        )

    def _reference(self, slot: int, value: SigmaFieldReference) -> Node:
        other = field_of(self._stream, value.field).slot
        begins, ends = value.starts_with, value.ends_with

        def test(values: list[Any], texts: list[str]) -> bool:
            if values[slot] is None or values[other] is None:
                return False
            one, two = texts[slot], texts[other]
            if begins and ends:
                return two in one
            if begins:
                return one.startswith(two)
            return one.endswith(two) if ends else one == two

        return OtherLeaf(slot, test, cost=3)

    def _keyword(self, value: SigmaType) -> Node:
        match value:
            case SigmaExpansion():
                return either([self._keyword(each) for each in value.values])
            case SigmaString() | SigmaRegularExpression() if value.contains_placeholder():
                return either([self._keyword(each) for each in self._expanded(value)])
            case SigmaString():
                anywhere = SpecialChars.WILDCARD_MULTI + value + SpecialChars.WILDCARD_MULTI
                leaves = tuple(text_leaf(slot, anywhere) for slot in self._slots)
                first = leaves[0]
                needs = (
                    first.literal.casefold() if isinstance(first, TextLeaf) else getattr(first, "needs", "")
                )
                return KeywordLeaf(leaves, needs)
            case SigmaNumber():
                return self._keyword(SigmaString(str(value)))
            case SigmaRegularExpression():
                found = tuple(expression_leaf(slot, value) for slot in self._slots)
                return KeywordLeaf(found, _needs(found[0]))
            case _:
                raise RuleRefusedError(f"{type(value).__name__} needs a field")


def _needs(leaf: Node) -> str:
    if isinstance(leaf, TextLeaf):
        return leaf.literal
    return leaf.needs if isinstance(leaf, OtherLeaf) else ""


def _need(field: Field, kind: str, modifier: str) -> None:
    if field.kind != kind:
        raise RuleRefusedError(
            f"{modifier} is for a field of kind {kind}, and {field.name} is of kind {field.kind}"
        )


def _time(field: Field, _: SigmaTimestampPart) -> Node:
    raise RuleRefusedError(f"{field.name} is not a time")


def _number(field: Field, value: SigmaNumber) -> Node:
    return number_leaf(field.slot, value.number, numeric=field.kind == "number")


def _flag(field: Field, value: SigmaBool) -> Node:
    return TextLeaf(field.slot, "equals", str(value).lower())


def _null(field: Field, _: SigmaNull) -> Node:
    slot = field.slot
    return OtherLeaf(slot, lambda values, _: values[slot] is None, cost=1)


def _exists(field: Field, value: SigmaExists) -> Node:
    slot, wanted = field.slot, value.exists
    return OtherLeaf(slot, lambda values, _: (values[slot] is not None) is wanted, cost=1)


def _network(field: Field, value: SigmaCIDRExpression) -> Node:
    _need(field, "address", "cidr")
    return network_leaf(field.slot, value.network)


def _comparison(field: Field, value: SigmaCompareExpression) -> Node:
    _need(field, "number", value.op.name.lower())
    slot = field.slot
    compare, number = _OPERATORS[value.op], value.number.number

    def test(values: list[Any], _: list[str]) -> bool:
        looked_at = values[slot]
        return looked_at is not None and compare(looked_at, number)

    return OtherLeaf(slot, test, cost=1)


# In this order: a part of a time is a number to pySigma.
_LEAVES: Final[tuple[tuple[type[SigmaType], Callable[[Field, Any], Node]], ...]] = (
    (SigmaTimestampPart, _time),
    (SigmaNumber, _number),
    (SigmaBool, _flag),
    (SigmaNull, _null),
    (SigmaExists, _exists),
    (SigmaCIDRExpression, _network),
    (SigmaCompareExpression, _comparison),
)
