# SPDX-License-Identifier: Apache-2.0
"""Judges whether today's readers read what every release wrote (BACKWARD_TRANSITIVE).

Input: the current schemas and the archive. Output: a sentence for each that cannot be read. Judged by the
rules of the Avro specification on schema resolution, with two of ours on top: a record that was ever on a
topic never disappears, and every field says what it means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from schemas.catalogue import ParsedSchema, Schema

# Which reader types the specification promotes a writer's type to.
_PROMOTIONS: Final[Mapping[str, frozenset[str]]] = {
    "int": frozenset({"long", "float", "double"}),
    "long": frozenset({"float", "double"}),
    "float": frozenset({"double"}),
    "string": frozenset({"bytes"}),
    "bytes": frozenset({"string"}),
}


def incompatibilities(current: Mapping[str, Schema], archive: Iterable[Schema]) -> list[str]:
    """What of the archive the current schemas cannot read, a sentence each."""
    found = []
    for old in archive:
        new = current.get(old.name)
        if new is None:
            found.append(f"{old.name} of {old.origin} has no current schema: its messages are unreadable")
            continue
        check = _Check(names_in(old.parsed), names_in(new.parsed))
        found += [
            f"{old.name} of {old.origin}: {problem}" for problem in check.read(old.parsed, new.parsed, "")
        ]
    return found


def undocumented(schema: ParsedSchema) -> list[str]:
    """Records, enums and fields without a doc, by name."""
    missing = []
    for name, named in names_in(schema).items():
        if not named.get("doc"):
            missing.append(name)
        missing += [f"{name}.{field['name']}" for field in named.get("fields", []) if not field.get("doc")]
    return missing


def names_in(schema: ParsedSchema) -> dict[str, dict[str, Any]]:
    """The named types a schema defines, by full name."""
    return {named["name"]: named for named in _walk(schema)}


def _walk(schema: ParsedSchema) -> Iterator[dict[str, Any]]:
    if isinstance(schema, list):
        for branch in schema:
            yield from _walk(branch)
    elif isinstance(schema, dict):
        kind = schema["type"]
        if kind in {"record", "enum", "fixed"}:
            yield schema
        for field in schema.get("fields", []):
            yield from _walk(field["type"])
        if kind in {"array", "map"}:
            yield from _walk(schema["items" if kind == "array" else "values"])


class _Check:
    """Resolution of one writer's schema by one reader's."""

    def __init__(self, writer_names: Mapping[str, Any], reader_names: Mapping[str, Any]) -> None:
        self._writer_names = writer_names
        self._reader_names = reader_names

    def read(self, writer: ParsedSchema, reader: ParsedSchema, place: str) -> list[str]:
        """Problems of reading ``writer`` as ``reader``; none means it can be read."""
        if isinstance(writer, str):
            writer = self._writer_names.get(writer, writer)
        if isinstance(reader, str):
            reader = self._reader_names.get(reader, reader)
        if isinstance(writer, list):
            return [problem for branch in writer for problem in self.read(branch, reader, place)]
        if isinstance(reader, list):
            if any(not self.read(writer, branch, place) for branch in reader):
                return []
            return [f"{place or 'it'}: no branch reads {_kind(writer)}"]
        kind = _kind(writer)
        if kind != _kind(reader):
            promoted = _kind(reader) in _PROMOTIONS.get(kind, frozenset())
            return [] if promoted else [f"{place or 'it'}: {kind} is not readable as {_kind(reader)}"]
        return self._same_kind(kind, writer, reader, place)

    def _same_kind(self, kind: str, writer: Any, reader: Any, place: str) -> list[str]:
        if kind == "array":
            return self.read(writer["items"], reader["items"], f"{place}[]")
        if kind == "map":
            return self.read(writer["values"], reader["values"], f"{place}{{}}")
        if kind not in {"record", "enum", "fixed"}:
            return []
        if writer["name"] != reader["name"]:
            return [f"{place or 'it'}: {writer['name']} is now named {reader['name']}"]
        return (
            self._record(writer, reader, place) if kind == "record" else _same_values(writer, reader, place)
        )

    def _record(self, writer: Any, reader: Any, place: str) -> list[str]:
        written = {field["name"]: field for field in writer["fields"]}
        problems = []
        for field in reader["fields"]:
            inner = f"{place}.{field['name']}".lstrip(".")
            old = written.get(field["name"])
            if old is not None:
                problems += self.read(old["type"], field["type"], inner)
            elif "default" not in field:
                problems.append(f"{inner}: new, and without a default")
        return problems


def _same_values(writer: Any, reader: Any, place: str) -> list[str]:
    if writer["type"] == "fixed":
        return (
            [] if writer["size"] == reader["size"] else [f"{place}: the size is no longer {writer['size']}"]
        )
    if "default" in reader:
        return []
    gone = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
    return [f"{place}: symbol {symbol} is gone and there is no default" for symbol in gone]


def _kind(schema: ParsedSchema) -> str:
    return schema["type"] if isinstance(schema, dict) else str(schema)
