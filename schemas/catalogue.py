# SPDX-License-Identifier: Apache-2.0
"""Finds the Avro schemas: the current ones by record name, the released ones by fingerprint.

Input: the ``.avsc`` files beside this module. Output: parsed schemas, read once and kept. Failure:
:class:`schemas.errors.SchemaError` when a name is not in the contract or an installed file is damaged.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fastavro import parse_schema
from fastavro.schema import SchemaParseException, UnknownType, fingerprint, to_parsing_canonical_form

from schemas.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE: Final = Path(__file__).parent
CURRENT: Final = HERE / "avro"
RELEASED: Final = HERE / "released"
NAMESPACE: Final = "nsp"
FINGERPRINT_BYTES: Final = 8

ParsedSchema = Any
"""What fastavro makes of a schema: nested dicts and lists."""


@dataclass(frozen=True, slots=True)
class Schema:
    """One version of one record.

    Attributes:
        name: Record name without namespace, e.g. ``EventBatch``.
        text: The JSON as it stands in the file.
        parsed: The same, parsed by fastavro.
        fingerprint: CRC-64-AVRO of the canonical form, little endian as it is on the wire.
        origin: Where it comes from: ``current`` or the version that released it.
    """

    name: str
    text: str
    parsed: ParsedSchema
    fingerprint: bytes
    origin: str


def load_schema(path: Path, origin: str) -> Schema:
    """Read one ``.avsc`` file."""
    try:
        text = path.read_text(encoding="utf-8")
        document = json.loads(text)
        parsed = parse_schema(document)
    except (OSError, ValueError, TypeError, KeyError, SchemaParseException, UnknownType) as error:
        raise SchemaError(f"{path.name}: not a readable Avro schema: {error}") from error
    name: str = document["name"]
    # The digest comes as hex of the wire order, not of the number.
    digest = bytes.fromhex(fingerprint(to_parsing_canonical_form(document), "CRC-64-AVRO"))
    return Schema(name, text, parsed, digest, origin)


@cache
def current() -> dict[str, Schema]:
    """The schemas this version writes, by record name."""
    schemas = [load_schema(path, "current") for path in sorted(CURRENT.glob("*.avsc"))]
    return {schema.name: schema for schema in schemas}


def archived(directory: Path = RELEASED) -> list[Schema]:
    """Every schema a release has written, oldest release first (``released/<version>/*.avsc``)."""
    versions = sorted((entry for entry in directory.iterdir() if entry.is_dir()), key=_version_order)
    return [
        load_schema(path, version.name) for version in versions for path in sorted(version.glob("*.avsc"))
    ]


def _version_order(directory: Path) -> list[int]:
    try:
        return [int(part) for part in directory.name.split(".")]
    except ValueError as error:
        raise SchemaError(f"released/{directory.name}: a release is named by numbers and dots") from error


@cache
def by_fingerprint() -> dict[bytes, Schema]:
    """Every schema a message may have been written with, the current one winning."""
    known = {schema.fingerprint: schema for schema in archived()}
    known.update({schema.fingerprint: schema for schema in current().values()})
    return known


def schema(name: str) -> Schema:
    """The current schema of a record name.

    Raises:
        SchemaError: The contract has no such record.
    """
    found = current().get(name)
    if found is None:
        raise SchemaError(f"no schema is named {name!r}; there are {', '.join(current())}")
    return found


def undocumented(parsed: ParsedSchema) -> list[str]:
    """Records, enums and fields without a doc, by name."""
    missing = []
    for name, named in names_in(parsed).items():
        if not named.get("doc"):
            missing.append(name)
        missing += [f"{name}.{field['name']}" for field in named.get("fields", []) if not field.get("doc")]
    return missing


def names_in(parsed: ParsedSchema) -> dict[str, dict[str, Any]]:
    """The named types a schema defines, by full name."""
    return {named["name"]: named for named in _named(parsed)}


def _named(parsed: ParsedSchema) -> Iterator[dict[str, Any]]:
    if isinstance(parsed, list):
        for branch in parsed:
            yield from _named(branch)
    elif isinstance(parsed, dict):
        kind = parsed["type"]
        if kind in {"record", "enum", "fixed"}:
            yield parsed
        for field in parsed.get("fields", []):
            yield from _named(field["type"])
        if kind in {"array", "map"}:
            yield from _named(parsed["items" if kind == "array" else "values"])
