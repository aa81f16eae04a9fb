# SPDX-License-Identifier: Apache-2.0
"""Runs the cases beside rule files, for ``nsp rules test``.

Input: a directory. Output: for each rule file its cases with their results; a file that does not load, or has
no or too few cases, is a failure of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

from nsp.errors import CommandError
from stream_apps.sigma.cases import CASES_SUFFIX, LEAST_CASES, CaseError, CaseResult, read_cases, run_case
from stream_apps.sigma.loading import files_of, load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_apps.sigma.translate import Surroundings

_BOTH: Final = frozenset({"alert", "nothing"})


@dataclass(frozen=True, slots=True)
class Tried:
    """A rule file and what its cases came to."""

    source: str
    results: tuple[CaseResult, ...]

    @property
    def failures(self) -> list[CaseResult]:
        """Those that did not come as expected."""
        return [each for each in self.results if not each.passed]


def run(directory: Path, around: Surroundings) -> list[Tried]:
    """Try all rules below a directory, or one file.

    Raises:
        CommandError: There are none, or they cannot be read.
    """
    try:
        tried = [Tried(source, tuple(_tried(source, text, around))) for source, text in files_of(directory)]
    except OSError as error:
        raise CommandError(f"{error.filename or directory}: {error.strerror or error}") from error
    if not tried:
        raise CommandError(f"{directory}: no rules in it", "rules are in files named *.yml or *.yaml")
    return tried


def junit(tried: Sequence[Tried]) -> bytes:
    """The results as JUnit XML: a suite for each file."""
    root = ET.Element("testsuites", name="nsp rules test")
    for each in tried:
        count, failed = str(len(each.results)), str(len(each.failures))
        suite = ET.SubElement(root, "testsuite", name=each.source, tests=count, failures=failed)
        for result in each.results:
            case = ET.SubElement(suite, "testcase", classname=Path(each.source).stem, name=result.name)
            if not result.passed:
                ET.SubElement(case, "failure", message=result.reason)
    ET.indent(root)
    written: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return written


def _tried(source: str, text: bytes, around: Surroundings) -> list[CaseResult]:
    loaded = load([(source, text)], around)
    refused = [each for each in loaded.verdicts if each.status != "loaded"]
    if refused:
        return [CaseResult("loads", passed=False, reason=f"line {refused[0].line}: {refused[0].reason}")]
    path = Path(source)
    beside = path.with_name(f"{path.stem}{CASES_SUFFIX}{path.suffix}")
    try:
        cases = read_cases(beside.read_bytes())
    except FileNotFoundError:
        return [CaseResult("has cases", passed=False, reason=f"no {beside.name} beside it")]
    except CaseError as error:
        return [CaseResult("has cases", passed=False, reason=f"{beside.name}: {error}")]
    results = [run_case(loaded.rules, each) for each in cases]
    if len(cases) < LEAST_CASES or {each.expect for each in cases} != _BOTH:
        few = f"at least {LEAST_CASES}, with some that must alert and some that must not"
        results.append(CaseResult("has cases", passed=False, reason=few))
    return results
