# SPDX-License-Identifier: Apache-2.0
"""Records as JSON documents, for samples and for people, checked strictly against their schema.

The convention: a record inside a union of several records is an object of one member named like the
record, ``{"nsp.SocketConnect": {...}}``; bytes are base64 text; an optional field, also one that is a record,
is its plain value or null.
Input: a document and a record name. Output: the record as :mod:`schemas.codec` takes it, and back.
Failure: :class:`schemas.errors.DocumentError`, whose text begins with the place.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any, Final

from schemas.catalogue import ParsedSchema, names_in, schema
from schemas.errors import DocumentError

_INT_RANGES: Final = {"int": 1 << 31, "long": 1 << 63}


def from_document(name: str, document: object) -> dict[str, Any]:
    """Make a record of a JSON document.

    Raises:
        DocumentError: It does not fit: a field is missing, unknown or of the wrong type.
    """
    parsed = schema(name).parsed
    record: dict[str, Any] = _Reader(names_in(parsed)).read(parsed, document, name)
    return record


def to_document(value: Any) -> Any:
    """Make a JSON document of a record."""
    if isinstance(value, tuple):
        name, record = value
        return {name: to_document(record)}
    if isinstance(value, Mapping):
        return {key: to_document(each) for key, each in value.items()}
    if isinstance(value, list):
        return [to_document(each) for each in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value


class _Reader:
    """One walk over a document and its schema at the same time."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self._names = names
        self._composite: dict[str, Callable[[Any, Any, str], Any]] = {
            "record": self._record,
            "enum": self._enum,
            "array": self._array,
            "map": self._map,
        }

    def read(self, wanted: ParsedSchema, value: Any, place: str) -> Any:
        """The value as the schema wants it."""
        if isinstance(wanted, list):
            return self._union(wanted, value, place)
        if isinstance(wanted, str) and wanted not in self._names:
            return _primitive(wanted, value, place)
        resolved = self._names[wanted] if isinstance(wanted, str) else wanted
        reader = self._composite.get(resolved["type"])
        if reader is None:
            return _primitive(resolved["type"], value, place)
        return reader(resolved, value, place)

    def _record(self, wanted: Any, value: Any, place: str) -> dict[str, Any]:
        _expect(isinstance(value, dict), place, "an object", value)
        known = {field["name"]: field for field in wanted["fields"]}
        for name in value:
            if name not in known:
                raise DocumentError(f"{place}.{name}: unknown field")
        for name, field in known.items():
            if name not in value and "default" not in field:
                raise DocumentError(f"{place}.{name}: missing")
        return {
            name: self.read(field["type"], value[name], f"{place}.{name}")
            if name in value
            else field["default"]
            for name, field in known.items()
        }

    def _enum(self, wanted: Any, value: Any, place: str) -> Any:
        if value not in wanted["symbols"]:
            raise DocumentError(
                f"{place}: expected one of {', '.join(wanted['symbols'])}, not {_shown(value)}"
            )
        return value

    def _array(self, wanted: Any, value: Any, place: str) -> list[Any]:
        _expect(isinstance(value, list), place, "a list", value)
        return [self.read(wanted["items"], each, f"{place}[{index}]") for index, each in enumerate(value)]

    def _map(self, wanted: Any, value: Any, place: str) -> dict[str, Any]:
        _expect(isinstance(value, dict), place, "an object", value)
        return {key: self.read(wanted["values"], each, f"{place}.{key}") for key, each in value.items()}

    def _union(self, wanted: Any, value: Any, place: str) -> Any:
        records = {
            branch["name"]: branch for branch in wanted if isinstance(branch, dict) and "fields" in branch
        }
        if len(records) > 1:
            _expect(
                isinstance(value, dict) and len(value) == 1, place, "an object of one named record", value
            )
            ((name, inner),) = value.items()
            if name not in records:
                raise DocumentError(f"{place}: no record is named {_shown(name)} here")
            return name, self.read(records[name], inner, f"{place}.{name}")
        if value is None and "null" in wanted:
            return None
        (only,) = [branch for branch in wanted if branch != "null"]
        return self.read(only, value, place)


def _primitive(wanted: str, value: Any, place: str) -> Any:
    if wanted in _INT_RANGES:
        limit = _INT_RANGES[wanted]
        _expect(type(value) is int and -limit <= value < limit, place, f"{wanted}", value)
    elif wanted == "boolean":
        _expect(isinstance(value, bool), place, "true or false", value)
    elif wanted == "string":
        _expect(isinstance(value, str), place, "text", value)
    elif wanted == "bytes":
        return _bytes(value, place)
    else:
        raise DocumentError(f"{place}: {wanted} is not used in this contract")
    return value


def _bytes(value: Any, place: str) -> bytes:
    _expect(isinstance(value, str), place, "base64 text", value)
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DocumentError(f"{place}: expected base64 text: {error}") from error


def _expect(holds: bool, place: str, expected: str, value: Any) -> None:
    if not holds:
        raise DocumentError(f"{place}: expected {expected}, not {_shown(value)}")


def _shown(value: Any) -> str:
    limit = 60
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "..."
