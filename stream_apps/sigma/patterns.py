# SPDX-License-Identifier: Apache-2.0
"""Sigma's values as leaves: texts with wildcards, expressions, networks, numbers.

Input: a pySigma value and the field. Output: a leaf. Failure: :class:`RuleRefusedError`.

Time is bounded for hostile text: wildcards are found from left to right without going back, and expressions
run on RE2, whose time is linear in the text; an expression RE2 does not know (look-around, back references)
is refused.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Any, Final

import re2
from sigma.types import SigmaCasedString, SigmaRegularExpressionFlag, SpecialChars

from schemas.addresses import to_mapped
from schemas.errors import SchemaError
from stream_apps.sigma.errors import RuleRefusedError
from stream_apps.sigma.literals import required_literal
from stream_apps.sigma.tree import Either, Node, OtherLeaf, Test, TextLeaf

if TYPE_CHECKING:
    from collections.abc import Callable

    from sigma.types import SigmaRegularExpression, SigmaString

    from stream_apps.sigma.tree import Shape

# Distinct addresses remembered as numbers; a node talks to fewer at a time.
_ADDRESSES: Final = 65_536
_MAPPED_BITS: Final = 96
# An expression costs about as much as this many text comparisons.
_EXPRESSION_COST: Final = 8
_WILDCARD_COST: Final = 4
# Beyond it an expression is a mistake, and RE2 would spend its memory on it.
_MAX_EXPRESSION: Final = 4096


def text_leaf(slot: int, value: SigmaString) -> Node:
    """A text, with or without wildcards."""
    cased = isinstance(value, SigmaCasedString)
    parts = _merged([each if cased or not isinstance(each, str) else each.casefold() for each in value.s])
    any_text, any_one = SpecialChars.WILDCARD_MULTI, SpecialChars.WILDCARD_SINGLE
    if any_one in parts:
        return _with_single(slot, parts, cased=cased)
    texts = [each for each in parts if isinstance(each, str)]
    if len(texts) <= 1 and parts.count(any_text) <= 1 + (parts[-1:] == [any_text]):
        return _simple(slot, parts, texts[0] if texts else "", cased=cased)
    return _with_wildcards(slot, parts, texts, cased=cased)


def _merged(parts: list[Any]) -> list[Any]:
    """Texts that follow each other as one, and so wildcards for any text."""
    found: list[Any] = []
    for each in parts:
        if isinstance(each, str) and found and isinstance(found[-1], str):
            found[-1] += each
        elif each and (each is not SpecialChars.WILDCARD_MULTI or found[-1:] != [each]):
            found.append(each)
    return found


def _simple(slot: int, parts: list[Any], literal: str, *, cased: bool) -> Node:
    wild = SpecialChars.WILDCARD_MULTI
    before, after = parts[:1] == [wild], parts[-1:] == [wild]
    if not literal:
        # Nothing but wildcards, or an empty text: all that matters is whether there is a value.
        if parts:
            return OtherLeaf(slot, lambda values, _: values[slot] is not None, cost=1)
        return OtherLeaf(slot, lambda values, texts: values[slot] is not None and not texts[slot], cost=1)
    shape: Shape = "contains" if before and after else "suffix" if before else "prefix" if after else "equals"
    return TextLeaf(slot, shape, literal, cased)


def _with_wildcards(slot: int, parts: list[Any], texts: list[str], *, cased: bool) -> Node:
    wild = SpecialChars.WILDCARD_MULTI
    first = texts[0] if parts[0] != wild else ""
    last = texts[-1] if parts[-1] != wild else ""
    middle = tuple(texts[bool(first) : len(texts) - bool(last)])

    def holds(text: str) -> bool:
        if not text.startswith(first) or not text.endswith(last):
            return False
        place, end = len(first), len(text) - len(last)
        for each in middle:
            place = text.find(each, place, end)
            if place < 0:
                return False
            place += len(each)
        return place <= end

    longest = max(texts, key=len).casefold()
    return OtherLeaf(slot, _on(slot, holds, cased=cased), _WILDCARD_COST, longest)


def _with_single(slot: int, parts: list[Any], *, cased: bool) -> Node:
    written = {SpecialChars.WILDCARD_MULTI: ".*", SpecialChars.WILDCARD_SINGLE: "."}
    expression = "".join(written.get(each) or re2.escape(each) for each in parts)
    found = _compiled(f"(?s)^(?:{expression})$", ignore_case=False)
    texts = [each for each in parts if isinstance(each, str)]
    longest = max(texts, key=len, default="").casefold()

    return OtherLeaf(slot, _on(slot, found, cased=cased), _EXPRESSION_COST, longest)


def _on(slot: int, holds: Callable[[str], bool], *, cased: bool) -> Test:
    if cased:
        return lambda values, _: values[slot] is not None and holds(str(values[slot]))
    return lambda values, texts: values[slot] is not None and holds(texts[slot])


def expression_leaf(slot: int, value: SigmaRegularExpression) -> Node:
    """A regular expression: found anywhere, with case, unless it says otherwise."""
    flags = value.flags
    prefix = "m" if SigmaRegularExpressionFlag.MULTILINE in flags else ""
    prefix += "s" if SigmaRegularExpressionFlag.DOTALL in flags else ""
    text = str(value.regexp)
    expression = f"(?{prefix}){text}" if prefix else text
    found = _compiled(expression, ignore_case=SigmaRegularExpressionFlag.IGNORECASE in flags)

    def test(values: list[Any], _: list[str]) -> bool:
        looked_at = values[slot]
        return looked_at is not None and found(str(looked_at))

    return OtherLeaf(slot, test, _EXPRESSION_COST, required_literal(text))


def _compiled(expression: str, *, ignore_case: bool) -> Callable[[str], bool]:
    """Whether an expression is found in a text.

    By RE2's filter, which knows by literals where an expression cannot match, and answers in C++ throughout:
    1.3 µs, where a compiled expression's search() takes 10 to make a match object.
    """
    if len(expression) > _MAX_EXPRESSION:
        raise RuleRefusedError(f"an expression of more than {_MAX_EXPRESSION} characters")
    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = not ignore_case
    options.never_capture = True
    try:
        # Compiled by itself for its error: the filter's says only that there is one.
        re2.compile(expression, options)
        found = re2.Filter()
        found.Add(expression, options)
        found.Compile()
    except re2.error as error:
        raise RuleRefusedError(f"the expression {expression!r} cannot run in linear time: {error}") from error
    match = found.Match
    return lambda text: match(text) is not None


def network_leaf(slot: int, network: IPv4Network | IPv6Network) -> Node:
    """An address within a network. An IPv4 address is one however it is written."""
    bits = network.prefixlen + (_MAPPED_BITS if isinstance(network, IPv4Network) else 0)
    shift = 128 - bits
    wanted = int.from_bytes(to_mapped(str(network.network_address)), "big") >> shift

    def test(_: list[Any], texts: list[str]) -> bool:
        number = _number(texts[slot])
        return number is not None and number >> shift == wanted

    return OtherLeaf(slot, test, cost=3)


@lru_cache(maxsize=_ADDRESSES)
def _number(text: str) -> int | None:
    try:
        return int.from_bytes(to_mapped(text), "big")
    except SchemaError:
        return None


def number_leaf(slot: int, number: float, *, numeric: bool) -> Node:
    """A number, of a field of numbers or as it is written in a text."""
    if numeric:
        known = number if isinstance(number, int) else None
        return OtherLeaf(slot, lambda values, _: bool(values[slot] == number), cost=1, number=known)
    return TextLeaf(slot, "equals", str(number))


def either(parts: list[Node]) -> Node:
    """One of several must hold; a single one stands for itself."""
    return parts[0] if len(parts) == 1 else Either(tuple(parts))
