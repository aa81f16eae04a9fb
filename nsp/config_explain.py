# SPDX-License-Identifier: Apache-2.0
"""What each setting means, and where its value comes from. For ``nsp config explain``.

Meaning and bounds are the model's own, which the published JSON Schema has too.
"""

from __future__ import annotations

import difflib
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nsp.errors import CommandError
from stream_apps.config.changes import name_of, settings
from stream_apps.config.document import StreamConfig, json_schema
from stream_apps.config.problems import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from stream_apps.config.document import Document
    from stream_apps.config.problems import Place

_WIDTH: Final = 100
_TYPES: Final = {
    "integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text",
    "null": "null", "object": "a mapping",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Explained:
    """One setting, explained.

    Attributes:
        name: Its place.
        value: What it is here.
        default: What it is when the file does not say.
        origin: Where the value comes from: file, line and column, or ``default``.
        kind: What it may be.
        meaning: What it means.
        needs_restart: Whether only a new process takes another value.
    """

    name: str
    value: Any
    default: Any
    origin: str
    kind: str
    meaning: str
    needs_restart: bool

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {name: getattr(self, name) for name in self.__slots__}

    def text(self, *, whole: bool) -> str:
        """For people; long values only when asked for this one."""
        show = _whole if whole else shown
        origin = self.origin
        if self.value != self.default:
            origin += f"; default {show(self.default)}"
        how = "needs a restart" if self.needs_restart else "taken over in flight"
        lines = [f"{self.name} = {show(self.value)}  ({origin})", f"    {self.kind}; {how}"]
        lines += textwrap.wrap(self.meaning, _WIDTH, initial_indent="    ", subsequent_indent="    ")
        return "\n".join(lines)


def explained(document: Document, file: Path | None, wanted: str | None) -> list[Explained]:
    """The settings at or below a place, or all.

    Raises:
        CommandError: There is no such place.
    """
    found = [each for each in _all(document, file) if _is_at(each.name, wanted)]
    if not found:
        names = {name for each in _all(document, file) for name in _and_above(each.name)}
        near = difflib.get_close_matches(str(wanted), sorted(names), n=1)
        cure = f"did you mean {near[0]}?" if near else "`nsp config explain` shows all"
        raise CommandError(f"there is no setting {wanted}", cure)
    return found


def _all(document: Document, file: Path | None) -> Iterator[Explained]:
    schema, defaults = json_schema(), settings(StreamConfig())
    for place, each in settings(document.config).items():
        node = _node_at(schema, place)
        given = place in document.marks.values
        mark = document.marks.of(place)
        yield Explained(
            name=name_of(place),
            value=each.value,
            default=defaults[place].value,
            origin=f"{file}:{mark.line}:{mark.column}" if given else "default",
            kind=_words(node, schema.get("$defs", {})),
            meaning=" ".join(str(node.get("description", "")).split()),
            needs_restart=each.needs_restart,
        )


def _is_at(name: str, wanted: str | None) -> bool:
    return wanted is None or name == wanted or name.startswith(f"{wanted}.")


def _and_above(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]


def _node_at(schema: Mapping[str, Any], place: Place) -> Mapping[str, Any]:
    """What the schema says of a place, with the description that is nearest."""
    node: Mapping[str, Any] = schema
    for part in place:
        node = _resolved(node, schema["$defs"])["properties"][part]
    return node


def _resolved(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = node.get("$ref")
    return {**definitions[reference.rpartition("/")[2]], **node} if reference else node


def _words(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """What a value may be."""
    node = _resolved(node, definitions)
    if "anyOf" in node:
        return " or ".join(_words(each, definitions) for each in node["anyOf"])
    if "enum" in node:
        return f"one of {', '.join(map(str, node['enum']))}"
    kind = str(node.get("type", ""))
    if kind == "array":
        items = _words(node["items"], definitions) if "items" in node else "values"
        return f"a list of: {items}"
    if kind == "object" and "properties" in node:
        return f"a mapping of {', '.join(node['properties'])}"
    least = node.get("minimum", node.get("exclusiveMinimum"))
    most = node.get("maximum", node.get("exclusiveMaximum"))
    bounds = f", {least} to {most}" if least is not None and most is not None else ""
    return _TYPES.get(kind, "a value") + bounds


def _whole(value: Any) -> str:
    import json  # noqa: PLC0415 - only for one long value

    return json.dumps(value, default=str)
