# SPDX-License-Identifier: Apache-2.0
"""YAML to validated profiles: read, checked, or refused whole with every problem.

Input: the text of a file, of one or several documents. Output: :class:`~schemas.profile.model.Profile`.
Failure: :class:`~schemas.profile.errors.ProfileError`, a line a problem: file and line, the place in the
document, the value, the cure. What YAML can do beyond data (aliases that multiply, keys given twice, types
that are not shown) is refused: whoever wrote it may not mean well.
"""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Any, Final

import yaml
from pydantic import ValidationError

from schemas.profile.errors import ProfileError
from schemas.profile.model import API_VERSION, MAX_RULES, Profile
from schemas.profile.values import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic_core import ErrorDetails

# A hundred thousand names are three megabytes; this is what a message takes, and some indentation.
MAX_FILE_BYTES: Final = 32 * 1024 * 1024
MAX_DEPTH: Final = 32
MAX_DOCUMENTS: Final = 1000
# The pure Python loader takes minutes for what libyaml does in seconds; not every build has it.
_Base: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PREDECESSOR: Final = "securityprobe.datadoghq.com/v1"

Place = tuple[str | int, ...]


class _Loader(_Base):  # type: ignore[misc]  # which of the two it is is only known here
    """Data only: no times made of text, no key twice."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as the base class has it
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise _NotDataError(f"{shown(key.value)} is given twice; keep one", key.start_mark.line + 1)
            seen.add(key.value)
        made: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return made


class _NotDataError(Exception):
    def __init__(self, problem: str, line: int) -> None:
        super().__init__(problem)
        self.line = line


def parse_profiles(data: bytes | str, source: str = "profile") -> list[Profile]:
    """Read every profile of a text.

    Args:
        data: YAML or JSON, one or more documents; empty ones are left out.
        source: What problems call it.

    Raises:
        ProfileError: Any of them is refused.
    """
    documents = _documents(data, source)
    problems: list[str] = []
    profiles = []
    for number, document in enumerate(documents):
        if document is None:
            continue
        try:
            profiles.append(_validated(document))
        except ValidationError as error:
            lines = _lines_of(data, number)
            problems += [_problem(each, source, lines) for each in error.errors()]
        except ValueError as error:
            problems.append(f"{source}: {error}")
    if not problems and not profiles:
        problems.append(f"{source}: there is no profile in it")
    if problems:
        raise ProfileError(problems)
    return profiles


def json_schema_text() -> str:
    """The schema as it is published in deploy/config/security-profile.schema.json."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Profile.model_json_schema()}
    return json.dumps(schema, indent=2) + "\n"


def _documents(data: bytes | str, source: str) -> list[Any]:
    if len(data) > MAX_FILE_BYTES:
        raise ProfileError([f"{source}: larger than {MAX_FILE_BYTES} bytes; split it"])
    try:
        _check_events(data)
        return list(yaml.load_all(data, Loader=_Loader))
    except _NotDataError as error:
        raise ProfileError([f"{source}:{error.line}: {error}"]) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark is not None else source
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ProfileError([f"{where}: not YAML: {reason}"]) from error
    except (RecursionError, ValueError) as error:
        raise ProfileError([f"{source}: not YAML: {shown(str(error))}"]) from error


def _check_events(data: bytes | str) -> None:
    depth = documents = 0
    for event in yaml.parse(data, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise _NotDataError("an alias; write it out", _line(event))
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _NotDataError(f"nested more than {MAX_DEPTH} deep", _line(event))
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > MAX_DOCUMENTS:
                raise _NotDataError(f"more than {MAX_DOCUMENTS} documents", _line(event))


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _validated(document: Any) -> Profile:
    count = _rules_in(document)
    if count > MAX_RULES:
        raise ValueError(
            f"{count} rules are more than the {MAX_RULES} a profile may have; use CIDRs and *.suffix names, "
            "or split it by workload"
        )
    return Profile.model_validate_json(json.dumps(document, default=_not_json))


def _not_json(value: object) -> str:
    raise ValueError(f"{shown(str(value))} is neither text nor a number; put it into quotes")


def _rules_in(document: Any) -> int:
    """How many list entries there are: what a validator would go through one by one."""
    if isinstance(document, dict):
        return sum(_rules_in(each) for each in document.values())
    if isinstance(document, list):
        return len(document) + sum(_rules_in(each) for each in document if isinstance(each, dict))
    return 0


def _lines_of(data: bytes | str, number: int) -> dict[Place, int]:
    """The line of each value of one document, by its place."""
    for index, node in enumerate(yaml.compose_all(data, Loader=_Loader)):
        if index == number and node is not None:
            return dict(_lines(node))
    return {}


def _lines(node: yaml.Node, place: Place = ()) -> Iterator[tuple[Place, int]]:
    yield place, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _lines(value, (*place, key.value))
            yield (*place, key.value), key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _lines(value, (*place, index))


def _problem(error: ErrorDetails, source: str, lines: Mapping[Place, int]) -> str:
    # A value that may be of two types is complained of once for each; the type is no part of the place.
    place = tuple(part for part in error["loc"] if not _is_type(part))
    found = next((lines[place[:end]] for end in range(len(place), -1, -1) if place[:end] in lines), 1)
    reason = error["msg"].removeprefix("Value error, ")
    return f"{source}:{found}: {_written(place)}: {reason}{_cure(error, place)}"


def _is_type(part: str | int) -> bool:
    return isinstance(part, str) and (part in {"str", "int"} or "[" in part)


def _written(place: Place) -> str:
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "the profile"


def _cure(error: ErrorDetails, place: Place) -> str:
    kind, given = error["type"], error["input"]
    if kind == "extra_forbidden":
        known = _fields_at(place[:-1])
        near = difflib.get_close_matches(str(place[-1]), known, n=1)
        if near:
            return f"; did you mean {near[0]}?"
        return f"; known here: {', '.join(known)}" if known else "; remove it"
    if kind == "literal_error" and place == ("apiVersion",) and given == _PREDECESSOR:
        return f"; profiles of the 2020 probe apply as they are with apiVersion: {API_VERSION}"
    if kind == "missing":
        return "; add it"
    if kind in {
        "literal_error",
        "string_type",
        "int_type",
        "bool_type",
        "list_type",
        "string_pattern_mismatch",
    }:
        return f"; it is {shown(given)}"
    return ""


def _fields_at(place: Place) -> list[str]:
    """The fields an object has, by walking the schema along a place."""
    schema = Profile.model_json_schema()
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
