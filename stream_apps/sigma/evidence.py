# SPDX-License-Identifier: Apache-2.0
"""Why a rule matched: the fields whose conditions held, with their values. For alerts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from stream_apps.sigma import taxonomy
from stream_apps.sigma.compiled import compile_node
from stream_apps.sigma.tree import All, Either, KeywordLeaf, Negation, OtherLeaf, TextLeaf

if TYPE_CHECKING:
    from stream_apps.sigma.facts import Facts
    from stream_apps.sigma.tree import Node, Test

_NAMES: Final = {each.slot: each.name for each in reversed(taxonomy.FIELDS)}

Explanation = Callable[["Facts"], list[tuple[str, Any]]]


def explanation_of(condition: Node) -> Explanation:
    """What says of a match which fields made it: names and values, each once, in the rule's order.

    What a rule says must not be is not among them.
    """
    asked = tuple(_asked(condition).items())

    def explain(facts: Facts) -> list[tuple[str, Any]]:
        values, texts = facts
        held = [slot for slot, test in asked if test(values, texts)]
        return [(_NAMES[slot], values[slot]) for slot in held if values[slot] is not None]

    return explain


def _asked(condition: Node) -> dict[int, Test]:
    """By slot, what must or may hold there."""
    found: dict[int, list[Node]] = {}
    pending = [condition]
    while pending:
        match pending.pop(0):
            case TextLeaf(slot=slot) | OtherLeaf(slot=slot) as leaf:
                found.setdefault(slot, []).append(leaf)
            case All(parts=parts) | Either(parts=parts) | KeywordLeaf(tests=parts):
                pending.extend(parts)
            case Negation():
                pass
    return {slot: compile_node(Either(tuple(leaves))) for slot, leaves in found.items()}
