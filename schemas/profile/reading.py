# SPDX-License-Identifier: Apache-2.0
"""YAML to plain data, and back to the line a value is in.

Input: a text, of one or several documents. Output: what JSON could say too: maps with text for keys, lists,
text, numbers, booleans. Failure: :class:`NotDataError` with the line. What YAML can do beyond data (aliases
that multiply, tags, keys given twice, numbers that are not shown) is refused, and so is what is too large,
before anything is made of it: whoever wrote it may not mean well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

from schemas.profile.model import MAX_RULES
from schemas.profile.values import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# A hundred thousand names are three megabytes; this is what a message takes, and some indentation.
MAX_FILE_BYTES: Final = 32 * 1024 * 1024
MAX_DEPTH: Final = 32
MAX_DOCUMENTS: Final = 1000
# Labels are the only keys one may choose, and nobody has so many.
MAX_KEYS: Final = 1000
# The pure Python loader takes minutes for what libyaml does in seconds; not every build has it.
_Base: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TEXT_TAG: Final = "tag:yaml.org,2002:str"
_INT_TAG: Final = "tag:yaml.org,2002:int"
_NOT_MADE: Final = frozenset(
    {_INT_TAG, *(f"tag:yaml.org,2002:{each}" for each in ("timestamp", "merge", "value"))}
)
# YAML 1.1 reads 22:10 as 1330 and 010 as 8, which nobody means who writes it for a port.
_INT: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]*)$")
# Where a List of kubectl has its items: a list right in the document.
_ITEMS_DEPTH: Final = 2

Place = tuple[str | int, ...]


class NotDataError(Exception):
    """A text that is no data.

    Args:
        problem: What is wrong, and the cure.
        line: Where, from 1; none when that is not known.
    """

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.line = line


class _Loader(_Base):  # type: ignore[misc]  # which of the two it is is only known here
    """Data only: no times made of text, no key twice, and keys are text as they are written."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as the base class has it
        first: [
            *((tag, pattern) for tag, pattern in resolvers if tag not in _NOT_MADE),
            *([(_INT_TAG, _INT)] if first in set("-+0123456789") else []),
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise NotDataError(f"{shown(key.value)} is given twice; keep one", key.start_mark.line + 1)
            seen.add(key.value)
            key.tag = _TEXT_TAG
        made: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return made


def documents_of(data: bytes | str) -> list[Any]:
    """Every document of a text; empty ones are None.

    Raises:
        NotDataError: It is not YAML, or more than data.
    """
    if len(data) > MAX_FILE_BYTES:
        raise NotDataError(f"larger than {MAX_FILE_BYTES} bytes; split it")
    try:
        _Check().read(data)
        return list(yaml.load_all(data, Loader=_Loader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        line = mark.line + 1 if mark is not None else None
        raise NotDataError(f"not YAML: {reason}{_cure(reason)}", line) from error
    except (RecursionError, ValueError) as error:
        raise NotDataError(f"not YAML: {shown(str(error))}") from error


def _cure(reason: str) -> str:
    if "cannot start any token" in reason:
        return "; indent with blanks, not tabs, and put what begins with @, ` or % into quotes"
    if "alphabetic or numeric" in reason:
        return '; put what begins with * or & into quotes, as in "*.example.com"'
    return ""


def lines_of(data: bytes | str, wanted: Sequence[tuple[int, Place]]) -> list[int]:
    """The line of each value, or of the nearest thing around it that is there.

    Args:
        data: A text that was read.
        wanted: The number of its document, from 0 and in order, and its place in it.
    """
    lines: list[int] = []
    for number, node in enumerate(yaml.compose_all(data, Loader=_Loader)):
        while len(lines) < len(wanted) and wanted[len(lines)][0] == number:
            lines.append(_line(node, wanted[len(lines)][1]))
        if len(lines) == len(wanted):
            break
    return lines


def _line(node: yaml.Node, place: Place) -> int:
    line = _first_line(node)
    for part in place:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == part), None)
            if found is None:
                break
            line, node = _first_line(found[0]), found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = _first_line(node)
        else:
            break
    return line


def _first_line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


@dataclass(slots=True)
class _Level:
    """A map or list that is open, and how many keys and values, or items, it has so far."""

    is_map: bool
    children: int = 0


class _Check:
    """Looks at a text's events, without making anything of them, until one is not data."""

    def __init__(self) -> None:
        self._open: list[_Level] = []
        self._documents = 0
        self._rules = 0

    def read(self, data: bytes | str) -> None:
        """Look at all of it.

        Raises:
            NotDataError: Something is not data, or too much.
        """
        for event in yaml.parse(data, Loader=_Loader):
            problem = next(self._problems(event), None)
            if problem:
                raise NotDataError(problem, event.start_mark.line + 1 if event.start_mark else None)

    def _problems(self, event: yaml.Event) -> Iterator[str]:
        if isinstance(event, yaml.AliasEvent):
            yield "an alias; write it out"
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            self._rules = 0
            if self._documents > MAX_DOCUMENTS:
                yield f"more than {MAX_DOCUMENTS} documents; split it"
        elif isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            yield from self._value(event)

    def _value(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> Iterator[str]:
        is_collection = isinstance(event, yaml.CollectionStartEvent)
        if event.tag is not None and (is_collection or event.tag not in {_TEXT_TAG, "!"}):
            yield f"a tag, {shown(event.tag)}; leave it out"
        if self._open:
            yield from self._child(self._open[-1], is_collection=is_collection)
        if is_collection:
            if len(self._open) == _ITEMS_DEPTH and not self._open[-1].is_map:
                # One more profile of a List.
                self._rules = 0
            self._open.append(_Level(isinstance(event, yaml.MappingStartEvent)))
            if len(self._open) > MAX_DEPTH:
                yield f"nested more than {MAX_DEPTH} deep"

    def _child(self, level: _Level, *, is_collection: bool) -> Iterator[str]:
        level.children += 1
        if level.is_map:
            if level.children % 2 and is_collection:
                yield "a key that is a list or a map; keys are text"
            if level.children > 2 * MAX_KEYS:
                yield f"a map of more than {MAX_KEYS} keys"
            return
        self._rules += 1
        if len(self._open) == _ITEMS_DEPTH and level.children > MAX_DOCUMENTS:
            yield f"a list of more than {MAX_DOCUMENTS} profiles; split it"
        if self._rules > MAX_RULES:
            yield (
                f"more than the {MAX_RULES} rules a profile may have; use CIDRs and *.suffix names, or split "
                "it by workload"
            )
