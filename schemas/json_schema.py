# SPDX-License-Identifier: Apache-2.0
"""What a JSON Schema of pydantic's says about a place in a document: for messages that name a cure. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def fields_at(schema: Mapping[str, Any], place: Sequence[str | int]) -> list[str]:
    """The fields an object has, by walking the schema along a place; none where it has no such place.

    Args:
        schema: The schema of the whole document.
        place: Names of fields and indices of items, from the top.
    """
    definitions = schema.get("$defs", {})
    node: Any = schema
    for part in place:
        node = _resolved(node, definitions)
        node = node.get("items", {}) if isinstance(part, int) else node.get("properties", {}).get(part, {})
    return list(_resolved(node, definitions).get("properties", {}))


def _resolved(node: Any, definitions: Mapping[str, Any]) -> Any:
    for branch in node.get("anyOf", ()):
        if branch.get("type") != "null":
            node = branch
    reference = node.get("$ref")
    return definitions.get(reference.rpartition("/")[2], {}) if reference else node
