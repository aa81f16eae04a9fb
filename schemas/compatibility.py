# SPDX-License-Identifier: Apache-2.0
"""Judges whether today's readers read what every release wrote (BACKWARD_TRANSITIVE).

Input: the current schemas and the archive. Output: a sentence for each that cannot be read. Schema
resolution is judged by the official ``avro`` package, which is there for development only: nothing that
runs in production imports this module. One rule is ours: a record that was ever on a topic never
disappears.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import avro.schema
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from schemas.catalogue import Schema


def incompatibilities(current: Mapping[str, Schema], archive: Iterable[Schema]) -> list[str]:
    """What of the archive the current schemas cannot read, a sentence each."""
    found = []
    for old in archive:
        new = current.get(old.name)
        if new is None:
            found.append(f"{old.name} of {old.origin} has no current schema: its messages are unreadable")
            continue
        problem = _problem(new, old)
        if problem:
            found.append(f"{old.name} of {old.origin} is not readable: {problem}")
    return found


def _problem(reader: Schema, writer: Schema) -> str | None:
    checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call] # its __init__ has no types
    result = checker.get_compatibility(avro.schema.parse(reader.text), avro.schema.parse(writer.text))
    if result.compatibility is SchemaCompatibilityType.compatible:
        return None
    kinds = ", ".join(sorted(kind.value for kind in result.incompatibilities))
    # The longest location is the innermost; the others are what it is in.
    place = max(result.locations, key=len)
    return f"{kinds} at {place} ({'; '.join(sorted(result.messages))})"
