# SPDX-License-Identifier: Apache-2.0
"""The stream apps' one configuration file: read, checked, or refused whole.

Input: a YAML file. Output: :class:`StreamConfig`. Failure: :class:`stream_apps.errors.ConfigError`, with one
line a problem, all at once: file and line, the place in the document, the reason, the cure. Nothing of a
refused file is used.

The document is checked as JSON would be: numbers are numbers, text is text. YAML that means something else
than it shows (a key twice) is refused.
"""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Any, Final

import yaml
from pydantic import Field, ValidationError, model_validator

from stream_apps.config_basis import RuleItem, Section
from stream_apps.config_learn import Learn
from stream_apps.config_sections import Correlate, Detect, Kafka, Service, Signing
from stream_apps.errors import ConfigError
from stream_apps.response_sections import Respond

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pydantic_core import ErrorDetails

# A larger file is not one a person wrote.
MAX_FILE_BYTES: Final = 1024 * 1024

Place = tuple[str | int, ...]


class StreamConfig(Section):
    """Configuration of the stream apps."""

    kafka: Kafka = Kafka()
    """Where Kafka is."""
    signing: Signing = Signing()
    """What enforcement is signed with."""
    service: Service = Service()
    """The process itself."""
    correlate: Correlate = Correlate()
    """What belongs together."""
    detect: Detect = Field(default_factory=Detect)
    """What is wrong."""
    respond: Respond = Field(default_factory=Respond)
    """What is done about it."""
    learn: Learn = Learn()
    """What workloads do, and when that is known well enough to enforce it."""

    @model_validator(mode="after")
    def _names_need_resolvers(self) -> StreamConfig:
        by_name = [
            each.reason
            for _, rule in self.detect
            if isinstance(rule, RuleItem)
            for each in rule.exclusions
            if each.dns_names
        ]
        if by_name and not self.correlate.names.trusted_resolvers:
            raise ValueError(
                f"the exclusion {by_name[0]!r} is by DNS name, and correlate.names.trusted_resolvers is "
                "empty: list the networks of your resolvers there"
            )
        return self

    @model_validator(mode="after")
    def _alerts_repeat_before_cuts_end(self) -> StreamConfig:
        for name, response in (
            ("nsp.rce-egress", self.respond.rce_egress),
            ("nsp.reverse-shell", self.respond.reverse_shell),
            *((f"policy {each.name}", each) for each in self.respond.policies),
        ):
            for each in response.actions:
                if each.action not in {"alert", "none"} and each.ttl_s < self.detect.repeat_after_s:
                    raise ValueError(
                        f"{each.action} of {name} ends after {each.ttl_s} s, and for detect.repeat_after_s "
                        f"({self.detect.repeat_after_s} s) nothing is cut again: make that the shorter one"
                    )
        return self


def load(path: Path) -> StreamConfig:
    """Read a file.

    Raises:
        ConfigError: It is refused, and why.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES} bytes; is it the right file?")
    return parse(data, str(path))


def parse(data: bytes | str, source: str = "configuration") -> StreamConfig:
    """Read a document; ``source`` is what problems call it.

    Raises:
        ConfigError: It is refused, and why.
    """
    try:
        root = yaml.compose(data, Loader=yaml.SafeLoader)
        lines = dict(_lines(root)) if root is not None else {}
        document = yaml.safe_load(data)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark is not None else source
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{where}: not YAML: {reason}") from error
    except RecursionError as error:
        raise ConfigError(f"{source}: nested too deeply, or an alias within itself") from error
    except _DuplicateKeyError as error:
        raise ConfigError(f"{source}:{error.line}: {error.key} is given twice; keep one") from error
    if document is None:
        document = {}
    try:
        return StreamConfig.model_validate_json(json.dumps(document))
    except (TypeError, ValueError) as error:
        if not isinstance(error, ValidationError):
            raise ConfigError(f"{source}: {error}: write it as text, in quotes") from error
        problems = [_problem(each, source, lines) for each in error.errors()]
        raise ConfigError("\n".join(problems)) from error


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the file, for editors and checks."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **StreamConfig.model_json_schema()}


def json_schema_text() -> str:
    """The schema as it is published in deploy/config/stream.schema.json."""
    return json.dumps(json_schema(), indent=2) + "\n"


class _DuplicateKeyError(Exception):
    def __init__(self, key: str, line: int) -> None:
        super().__init__(key)
        self.key = key
        self.line = line


def _lines(node: yaml.Node, place: Place = ()) -> Iterator[tuple[Place, int]]:
    """The line of each value, by its place; of a member, the line of its key."""
    yield place, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                raise _DuplicateKeyError(key.value, line)
            seen.add(key.value)
            yield from _lines(value, (*place, key.value))
            yield (*place, key.value), line
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _lines(value, (*place, index))


def _problem(error: ErrorDetails, source: str, lines: Mapping[Place, int]) -> str:
    place = error["loc"]
    found = next((lines[place[:end]] for end in range(len(place), -1, -1) if place[:end] in lines), 1)
    where = ".".join(map(str, place)) or "the file"
    reason = error["msg"].removeprefix("Value error, ")
    return f"{source}:{found}: {where}: {reason}{_cure(error)}"


def _cure(error: ErrorDetails) -> str:
    kind, place = error["type"], error["loc"]
    if kind == "extra_forbidden":
        known = _fields_at(place[:-1])
        near = difflib.get_close_matches(str(place[-1]), known, n=1)
        if near:
            return f"; did you mean {near[0]}?"
        return f"; known here: {', '.join(known)}" if known else "; remove it"
    if kind == "missing":
        return "; add it"
    if kind in ("int_type", "bool_type", "string_type", "tuple_type", "dict_type"):
        return f"; it is {json.dumps(error['input'], default=str)[:80]}"
    return ""


def _fields_at(place: Place) -> list[str]:
    """The fields a section has, by walking the schema along a place."""
    schema = json_schema()
    definitions = schema.get("$defs", {})
    node: Any = schema
    for part in place:
        node = _resolved(node, definitions)
        node = node.get("items", {}) if isinstance(part, int) else node.get("properties", {}).get(part, {})
    return list(_resolved(node, definitions).get("properties", {}))


def _resolved(node: Any, definitions: Mapping[str, Any]) -> Any:
    reference = node.get("$ref")
    return definitions.get(reference.rpartition("/")[2], {}) if reference else node
