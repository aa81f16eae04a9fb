# SPDX-License-Identifier: Apache-2.0
"""Everything a stream app would say against a configuration, and its rules. For ``nsp config validate``."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from stream_apps.config.document import load_document
from stream_apps.config.file import load_all
from stream_apps.config.problems import Mark, Problem
from stream_apps.errors import ConfigError
from stream_apps.sigma.build import surroundings
from stream_apps.sigma.loading import load
from stream_apps.streaming.connection import KafkaConnection
from stream_apps.streaming.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stream_apps.config.document import Document
    from stream_apps.config.file import Loaded


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of it.

    Attributes:
        problems: What is wrong; empty when all is well.
        version: Digest of the file, when it could be read.
        rules: What became of the rules, in words.
    """

    problems: tuple[Problem, ...]
    version: str = ""
    rules: str = "rules were not looked at"


def check(file: Path, *, with_rules: bool) -> Checked:
    """Check a file."""
    try:
        document = load_document(file)
    except ConfigError as error:
        return Checked(error.problems)
    problems = list(_of_connection(file, document))
    if not with_rules:
        return Checked(tuple(problems), document.version)
    try:
        loaded = load_all(file)
    except ConfigError as error:
        return Checked((*problems, *error.problems), document.version)
    refused, words = _of_rules(loaded)
    return Checked((*problems, *refused), document.version, words)


def as_json(checked: Checked) -> dict[str, Any]:
    """For programs."""
    return {
        "good": not checked.problems,
        "version": checked.version,
        "problems": [asdict(each) for each in checked.problems],
    }


def _of_connection(file: Path, document: Document) -> Iterator[Problem]:
    kafka = document.config.kafka
    try:
        KafkaConnection(",".join(kafka.brokers), kafka.properties)
    except StartError as error:
        mark = document.marks.of(("kafka", "properties"))
        yield Problem(str(file), mark, "kafka.properties", str(error))


def _of_rules(loaded: Loaded) -> tuple[list[Problem], str]:
    verdicts = load(loaded.rules, surroundings(loaded.config.detect.sigma)).verdicts
    counts = Counter(each.status for each in verdicts)
    refused = [
        Problem(
            each.source, Mark(each.line, 1), "", f"rule refused: {each.reason}",
            cure="change it, or take it out; the others are used",
        )
        for each in verdicts
        if each.status == "refused"
    ]  # fmt: skip
    return refused, f"{counts['loaded']} rules loaded, {counts['elsewhere']} for other logs"
