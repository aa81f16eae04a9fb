# SPDX-License-Identifier: Apache-2.0
"""What the model says of a document, put into words: the place, the value, the cure. Pure.

Input: pydantic's errors and the document. Output: a line each, at most as many as a person is shown.
"""

from __future__ import annotations

import difflib
import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from schemas.json_schema import fields_at
from schemas.profile.model import API_VERSION, Profile
from schemas.profile.values import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from schemas.profile.reading import Place

_PREDECESSOR: Final = "securityprobe.datadoghq.com/v1"
_FIELD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,60}")
_RANGE: Final = re.compile(r"[0-9]+\s*-\s*[0-9]+")
_OBJECTS: Final = frozenset({"model_type", "model_attributes_type", "dict_type"})
# One value, two types it may be of: complained of once for each.
_OF_A_UNION: Final = frozenset({"int_type", "string_type"})


class Problem(NamedTuple):
    """One thing that is wrong.

    Attributes:
        place: Of the value in the document.
        text: The place, the value and the cure.
    """

    place: Place
    text: str


def problems_of(
    error: ValidationError, document: Any, prefix: Place, limit: int
) -> tuple[list[Problem], int]:
    """The first problems of a document, and how many there are besides.

    Args:
        error: What the model said.
        document: Of what.
        prefix: Where the document is in its file.
        limit: How many to put into words.
    """
    told: list[Problem] = []
    before: tuple[Place, str] | None = None
    merged = 0
    errors = error.errors(include_url=False, include_context=False)
    for each in errors:
        place = _place(each["loc"], document)
        if before and before[0] == place and {before[1], each["type"]} == _OF_A_UNION:
            merged += 1
            if len(told) <= limit and told[-1].place == (*prefix, *place):
                reason = f"Input should be a number or text; it is {shown(each['input'])}"
                told[-1] = Problem((*prefix, *place), f"{_written((*prefix, *place))}: {reason}")
            continue
        before = place, each["type"]
        if len(told) < limit:
            text = f"{_written((*prefix, *place))}: {_reason(each)}{_cure(each, place)}"
            told.append(Problem((*prefix, *place), text))
    return told, len(errors) - merged - len(told)


def _place(given: tuple[str | int, ...], document: Any) -> Place:
    """The place in the document: pydantic also says which type of several it has tried."""
    place: list[str | int] = []
    value = document
    for part in given:
        inside = isinstance(value, dict) and part in value
        if isinstance(part, str) and not inside and (part in {"str", "int"} or "[" in part):
            break
        place.append(part)
        if inside or (isinstance(value, list) and isinstance(part, int) and part < len(value)):
            value = value[part]
    return tuple(place)


def _written(place: Place) -> str:
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _FIELD.fullmatch(part):
            text += f".{part}" if text else part
        else:
            # A key somebody chose: escaped, and cut.
            text += f"[{shown(part)}]"
    return text or "the profile"


def _reason(error: ErrorDetails) -> str:
    match error["type"]:
        case "extra_forbidden":
            return "no such field"
        case "string_pattern_mismatch":
            return (
                f"{shown(error['input'])} is no name; lower-case letters, digits and -, a letter or digit at "
                "both ends"
            )
        case _:
            return error["msg"].removeprefix("Value error, ")


def _cure(error: ErrorDetails, place: Place) -> str:
    kind, given = error["type"], error["input"]
    match kind:
        case "extra_forbidden":
            return _field_cure(place)
        case "missing":
            return "; add it"
        case "value_error" | "string_pattern_mismatch" | "too_long" | "too_short":
            return ""
        case "literal_error":
            return _literal_cure(given, place)
    return f"; it is {shown(given)}" + "".join(_type_cure(kind, given, place))


def _literal_cure(given: Any, place: Place) -> str:
    if place == ("apiVersion",) and given == _PREDECESSOR:
        return f"; profiles of the 2020 probe apply as they are with apiVersion: {API_VERSION}"
    everything = "; leave the layer out, and everything passes it" if given == "*" else ""
    return f"; it is {shown(given)}{everything}"


def _field_cure(place: Place) -> str:
    known = fields_at(_schema(), place[:-1])
    near = difflib.get_close_matches(str(place[-1])[:60], known, n=1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known here: {', '.join(known)}" if known else "; remove it"


def _type_cure(kind: str, given: Any, place: Place) -> Iterator[str]:
    scalar = given is not None and not isinstance(given, dict | list)
    if given is None:
        yield "; remove the key, or give it a value"
    elif kind in _OBJECTS and (fields := fields_at(_schema(), place)):
        yield f"; its fields are {', '.join(fields)}"
    elif kind == "list_type" and scalar:
        yield f"; did you mean [{shown(given)}]?"
    elif kind == "string_type" and scalar:
        yield "; put it into quotes"
    elif kind == "bool_type":
        yield "; write true or false"
    elif kind == "int_type" and isinstance(given, str):
        if given.isascii() and given.isdigit():
            yield "; write it without quotes"
        elif place[-1:] == ("port",) and _RANGE.fullmatch(given):
            yield f"; did you mean ports: [{shown(given)}]?"
        else:
            yield "; write a decimal number"


@cache
def _schema() -> dict[str, Any]:
    return Profile.model_json_schema()
