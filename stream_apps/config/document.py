# SPDX-License-Identifier: Apache-2.0
"""The stream apps' one configuration file: read, checked, or refused whole.

Input: a YAML file. Output: :class:`StreamConfig`. Failure: :class:`stream_apps.errors.ConfigError`, with one
line a problem, all at once: file and line, the place in the document, the reason, the cure. Nothing of a
refused file is used.

The document is checked as JSON would be: numbers are numbers, text is text. YAML that means something else
than it shows (a key twice) is refused.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import yaml
from pydantic import Field, ValidationError, model_validator

from schemas.json_schema import fields_at
from stream_apps.config.basis import RuleItem, Section
from stream_apps.config.learn import Learn
from stream_apps.config.problems import Mark, Marks, Problem, marks_of, problem_of
from stream_apps.config.responses import Respond
from stream_apps.config.sections import Correlate, Detect, Kafka, Service, Signing
from stream_apps.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

# A larger file is not one a person wrote.
MAX_FILE_BYTES: Final = 1024 * 1024
_VERSION_DIGITS: Final = 12


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


@dataclass(frozen=True, slots=True)
class Document:
    """A file that was accepted.

    Attributes:
        config: What it says.
        version: The first 12 hex digits of the SHA-256 of its bytes, as ``sha256sum`` shows them.
        marks: Where each setting stands.
    """

    config: StreamConfig
    version: str
    marks: Marks


def load(path: Path) -> StreamConfig:
    """Read a file.

    Raises:
        ConfigError: It is refused, and why.
    """
    return load_document(path).config


def load_document(path: Path) -> Document:
    """Read a file, with where its settings stand.

    Raises:
        ConfigError: It is refused, and why.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _refused(str(path), f"cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_FILE_BYTES:
        raise _refused(str(path), f"larger than {MAX_FILE_BYTES} bytes; is it the right file?")
    return parse_document(data, str(path))


def parse(data: bytes | str, source: str = "configuration") -> StreamConfig:
    """Read a document; ``source`` is what problems call it.

    Raises:
        ConfigError: It is refused, and why.
    """
    return parse_document(data, source).config


def parse_document(data: bytes | str, source: str = "configuration") -> Document:
    """Read a document, with where its settings stand.

    Raises:
        ConfigError: It is refused, and why.
    """
    try:
        marks = marks_of(yaml.compose(data, Loader=yaml.SafeLoader))
        document = yaml.safe_load(data)
    except yaml.YAMLError as error:
        at = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        mark = Mark(at.line + 1, at.column + 1) if at is not None else None
        raise _refused(source, f"not YAML: {reason}", mark) from error
    except RecursionError as error:
        raise _refused(source, "nested too deeply, or an alias within itself") from error
    problems = [
        Problem(source, mark, "", f"{key} is given twice", cure="keep one") for key, mark in marks.twice
    ]
    config: StreamConfig | None = None
    try:
        config = StreamConfig.model_validate_json(json.dumps({} if document is None else document))
    except ValidationError as error:
        errors = error.errors()
        # A list whose only item is wrong is not empty as well.
        inner = {each["loc"][:-1] for each in errors}
        problems += [
            problem_of(each, source, marks, partial(fields_at, json_schema()))
            for each in errors
            if each["type"] != "too_short" or each["loc"] not in inner
        ]
    except (TypeError, ValueError) as error:
        problems.append(Problem(source, None, "", f"{error}: write it as text, in quotes"))
    problems.sort(key=lambda each: (each.mark.line, each.mark.column) if each.mark else (0, 0))
    if config is None or problems:
        raise ConfigError("\n".join(map(str, problems)), problems)
    content = data.encode() if isinstance(data, str) else data
    return Document(config, hashlib.sha256(content).hexdigest()[:_VERSION_DIGITS], marks)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the file, for editors and checks."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **StreamConfig.model_json_schema()}


def json_schema_text() -> str:
    """The schema as it is published in schemas/config/stream.schema.json."""
    return json.dumps(json_schema(), indent=2) + "\n"


def _refused(source: str, reason: str, mark: Mark | None = None) -> ConfigError:
    problem = Problem(source, mark, "", reason)
    return ConfigError(str(problem), (problem,))
