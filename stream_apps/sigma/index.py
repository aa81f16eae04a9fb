# SPDX-License-Identifier: Apache-2.0
"""The rules of one stream, found by what an event must have for them.

Input: an event's facts. Output: the rules that match. Each rule is entered under the atoms of ``required``:
the name of a program, a number, or a literal that an Aho-Corasick automaton finds in one pass over a field.
Only rules whose atoms are there are asked; a rule without atoms is asked for each event.

Failure: a rule that raises is counted, by rule; the others are asked.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ahocorasick_rs import AhoCorasick

from stream_apps.sigma.compiled import compile_node
from stream_apps.sigma.required import required

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from stream_apps.sigma.facts import Facts
    from stream_apps.sigma.required import Atom
    from stream_apps.sigma.ruleset import EventRule

    _Search = tuple[int, Callable[[str, bool], list[tuple[int, int, int]]], list[tuple[int, ...]]]


class RuleIndex:
    """The rules of one stream.

    Attributes:
        rules: In the order in which matches are told.
        errors: Faults by rule id.
        faults: All of them.
        unindexed: Rules asked for each event.
    """

    def __init__(self, rules: Sequence[EventRule]) -> None:
        self.rules = tuple(rules)
        self.errors: Counter[str] = Counter()
        self.faults = 0
        self._tests = [compile_node(each.condition) for each in self.rules]
        atoms: dict[Atom, list[int]] = {}
        always = []
        for number, rule in enumerate(self.rules):
            needed = required(rule.condition)
            if needed is None:
                always.append(number)
                continue
            for atom in needed.atoms:
                atoms.setdefault(atom, []).append(number)
        self._always = tuple(always)
        self._exact = _exact(atoms)
        self._contained = _contained(atoms)

    @property
    def unindexed(self) -> int:
        """Rules asked for each event."""
        return len(self._always)

    def candidates(self, facts: Facts) -> Iterable[int]:
        """Numbers of the rules that can match; a few of them do."""
        texts = facts.texts
        found = set(self._always)
        for slot, table in self._exact:
            numbers = table.get(texts[slot])
            if numbers is not None:
                found.update(numbers)
        for slot, find, places in self._contained:
            text = texts[slot]
            if text:
                for match in find(text, True):
                    found.update(places[match[0]])
        return found

    def matches(self, facts: Facts) -> list[EventRule]:
        """The rules that match."""
        values, texts = facts
        tests = self._tests
        hits = []
        for number in self.candidates(facts):
            try:
                if tests[number](values, texts):
                    hits.append(number)
            except Exception:  # noqa: BLE001 - one rule's fault, counted; the others are asked
                self.errors[self.rules[number].rule.id] += 1
                self.faults += 1
        if not hits:
            return []
        return [self.rules[number] for number in sorted(hits)]


def _exact(atoms: dict[Atom, list[int]]) -> list[tuple[int, dict[str, tuple[int, ...]]]]:
    """Look-ups by an equal text."""
    tables: dict[int, dict[str, tuple[int, ...]]] = {}
    for atom, numbers in atoms.items():
        if atom.way != "text":
            tables.setdefault(atom.slot, {})[atom.literal] = tuple(numbers)
    return list(tables.items())


def _contained(
    atoms: dict[Atom, list[int]],
) -> list[_Search]:
    """Look-ups by a text contained: an automaton for each slot, and the rules of each of its literals."""
    by_slot: dict[int, list[tuple[str, tuple[int, ...]]]] = {}
    for atom, numbers in atoms.items():
        if atom.way == "text":
            by_slot.setdefault(atom.slot, []).append((atom.literal, tuple(numbers)))
    found: list[_Search] = []
    for slot, entries in by_slot.items():
        automaton = AhoCorasick([literal for literal, _ in entries])
        found.append((slot, automaton.find_matches_as_indexes, [numbers for _, numbers in entries]))
    return found
