# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a configuration, with the place, the value and the cure.

Input: the YAML tree, for where things stand, and pydantic's errors. Output: :class:`Problem`. The texts are
shown to people, so values are escaped as JSON is.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pydantic_core import ErrorDetails

Place = tuple[str | int, ...]
"""Keys and indexes from the root of the document."""

# Of a value that is shown; a wrong one may be the whole file.
_SHOWN: Final = 80
# Security settings of Kafka: somebody may have put a password there, which is no business of a log.
_SECRET: Final = ("kafka", "properties")
_WANTED: Final = {
    "int_type": "write a whole number, without quotes",
    "int_from_float": "write a whole number",
    "float_type": "write a number, without quotes",
    "bool_type": "write true or false, without quotes",
    "string_type": "write text, in quotes",
    "tuple_type": "write a list: [a, b]",
    "dict_type": "write a mapping: {name: value}",
    "model_type": "write a section of names and values",
    "model_attributes_type": "write a section of names and values",
    "too_short": "give at least one",
    "string_too_short": "write something",
    "string_pattern_mismatch": "write it in this form",
}


@dataclass(frozen=True, slots=True)
class Mark:
    """Where something stands, both from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        source: File.
        mark: Where in it; None: nowhere in particular.
        place: Which setting, with dots; empty for none.
        reason: What is wrong.
        value: What it is now, as JSON; empty where there is none.
        cure: What to do; empty where the reason says it.
    """

    source: str
    mark: Mark | None
    place: str
    reason: str
    value: str = ""
    cure: str = ""

    def __str__(self) -> str:
        """For a log: file and line, place, reason, value, cure."""
        return self._words(f":{self.mark.line}" if self.mark else "")

    def whole(self) -> str:
        """The same for editors, which jump to file:line:column."""
        return self._words(f":{self.mark.line}:{self.mark.column}" if self.mark else "")

    def _words(self, where: str) -> str:
        place = f"{self.place}: " if self.place else ""
        value = f" (it is {self.value})" if self.value else ""
        return f"{self.source}{where}: {place}{self.reason}{value}" + (f"; {self.cure}" if self.cure else "")


@dataclass(frozen=True, slots=True)
class Marks:
    """Where each setting of a document stands.

    Attributes:
        keys: Marks of keys, by the place of their value.
        values: Marks of values.
        twice: Keys that were given twice, where they are the second time.
    """

    keys: Mapping[Place, Mark]
    values: Mapping[Place, Mark]
    twice: tuple[tuple[str, Mark], ...] = ()

    def of(self, place: Place, *, key: bool = False) -> Mark:
        """Where a setting stands, or the next one around it: the value, or its key where that is above."""
        for end in range(len(place), 0, -1):
            at_key, at_value = self.keys.get(place[:end]), self.values.get(place[:end])
            if at_key is None and at_value is None:
                continue
            if at_value is None or (at_key is not None and (key or at_key.line != at_value.line)):
                return at_key or Mark(1, 1)
            return at_value
        return Mark(1, 1)


def marks_of(root: yaml.Node | None) -> Marks:
    """Where everything stands in a document.

    Raises:
        RecursionError: It is nested too deeply, or within itself.
    """
    keys: dict[Place, Mark] = {}
    values: dict[Place, Mark] = {}
    twice: list[tuple[str, Mark]] = []
    for place, node, key in _walk(root, ()) if root is not None else ():
        values[place] = _mark(node)
        if key is not None:
            if place in keys:
                twice.append((str(place[-1]), _mark(key)))
            keys[place] = _mark(key)
    return Marks(keys, values, tuple(twice))


def problem_of(
    error: ErrorDetails, source: str, marks: Marks, fields_at: Callable[[Place], list[str]]
) -> Problem:
    """A problem from pydantic's error; ``fields_at`` says what a section may have."""
    place, kind = error["loc"], error["type"]
    return Problem(
        source=source,
        mark=marks.of(place, key=kind == "extra_forbidden"),
        place=".".join(map(str, place)) or "the file",
        reason=error["msg"].removeprefix("Value error, "),
        value="" if kind == "missing" or not place or place[:2] == _SECRET else shown(error["input"]),
        cure=_cure(error, fields_at),
    )


def shown(value: Any) -> str:
    """A value as JSON, cut where it is long."""
    text = json.dumps(value, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _cure(error: ErrorDetails, fields_at: Callable[[Place], list[str]]) -> str:
    kind, place = error["type"], error["loc"]
    if kind == "extra_forbidden":
        known = fields_at(place[:-1])
        near = difflib.get_close_matches(str(place[-1]), known, n=1)
        if near:
            return f"did you mean {near[0]}?"
        return f"known here: {', '.join(known)}" if known else "remove it"
    if kind == "missing":
        return "add it"
    if kind == "literal_error":
        words = str(error.get("ctx", {}).get("expected", "")).replace("'", "").replace(" or ", ", ")
        near = difflib.get_close_matches(str(error["input"]).upper(), words.upper().split(", "), n=1)
        found = next((each for each in words.split(", ") if near and each.upper() == near[0]), "")
        return f"did you mean {found}?" if found else ""
    return _WANTED.get(kind, "")


def _walk(node: yaml.Node, place: Place) -> Iterator[tuple[Place, yaml.Node, yaml.Node | None]]:
    yield place, node, None
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, key.value)
            yield inner, value, key
            yield from _inside(value, inner)
    else:
        yield from _inside(node, place)


def _inside(node: yaml.Node, place: Place) -> Iterator[tuple[Place, yaml.Node, yaml.Node | None]]:
    """What is in a value, without itself."""
    if isinstance(node, yaml.MappingNode):
        for each in _walk(node, place):
            if each[0] != place:
                yield each
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _walk(value, (*place, index))


def _mark(node: yaml.Node) -> Mark:
    return Mark(node.start_mark.line + 1, node.start_mark.column + 1)
