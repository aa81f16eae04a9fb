# SPDX-License-Identifier: Apache-2.0
"""A rule's condition as a tree: what ``translate`` makes, and ``compiled`` and ``required`` read.

Leaves look at one slot of an event's :class:`~stream_apps.sigma.facts.Facts`. A leaf never holds for an
absent value, except the one that asks for absence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from stream_apps.sigma.taxonomy import EVERYTHING

Test = Callable[[list[Any], list[str]], bool]
"""Whether something holds: given values and case-folded texts by slot."""

Shape = Literal["equals", "prefix", "suffix", "contains"]


@dataclass(frozen=True, slots=True)
class TextLeaf:
    """A comparison with one literal.

    Attributes:
        slot: Where to look.
        shape: How.
        literal: Case-folded, unless ``cased``.
        cased: Case matters: the value is looked at, not the text.
    """

    slot: int
    shape: Shape
    literal: str
    cased: bool = False


@dataclass(frozen=True, slots=True)
class OtherLeaf:
    """Any other comparison.

    Attributes:
        slot: Where to look.
        test: The comparison.
        cost: About how many text comparisons it costs.
        needs: A case-folded literal that the text must contain if the comparison holds; empty: none known.
        number: The number that the value must be; None: none known.
    """

    slot: int
    test: Test
    cost: int = 2
    needs: str = ""
    number: int | None = None


@dataclass(frozen=True, slots=True)
class KeywordLeaf:
    """A comparison that some field's text must pass.

    Attributes:
        tests: The comparison, for each slot of the stream.
        needs: As of :class:`OtherLeaf`.
    """

    tests: tuple[Node, ...]
    needs: str = ""


@dataclass(frozen=True, slots=True)
class All:
    """All must hold."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """One must hold."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Negation:
    """It must not hold."""

    part: Node


Node = TextLeaf | OtherLeaf | KeywordLeaf | All | Either | Negation


def slots_of(node: Node) -> frozenset[int]:
    """All slots a condition looks at."""
    match node:
        case TextLeaf(slot=slot) | OtherLeaf(slot=slot):
            return frozenset({slot})
        case Negation(part=part):
            return slots_of(part)
        case KeywordLeaf(tests=parts):
            return frozenset({EVERYTHING}).union(*map(slots_of, parts))
        case All(parts=parts) | Either(parts=parts):
            return frozenset().union(*map(slots_of, parts))
