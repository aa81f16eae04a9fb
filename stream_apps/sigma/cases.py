# SPDX-License-Identifier: Apache-2.0
"""Events beside a rule that must match it or must not: what ``nsp rules test`` runs.

Beside ``NAME.yml`` lies ``NAME.events.yml``, a list of cases, each with ``name``, ``expect`` (alert or
nothing) and ``events``: the fields of one event after the other, by their Sigma names. ``at`` is an event's
time in seconds, for correlations; ``category`` its log source, where that is not the first rule's.

Output: a :class:`CaseResult` for each case. Failure: :class:`CaseError` where the cases cannot be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from stream_apps.errors import StreamAppError
from stream_apps.sigma import taxonomy
from stream_apps.sigma.compiled import compile_node
from stream_apps.sigma.correlation import Correlator
from stream_apps.sigma.facts import Facts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_apps.sigma.ruleset import EventRule, RuleSet
    from stream_apps.sigma.taxonomy import Stream

CASES_SUFFIX: Final = ".events"
# Fewer do not show where a rule ends.
LEAST_CASES: Final = 3
_NS_PER_S: Final = 1_000_000_000
_NODE: Final = "node"


class CaseError(StreamAppError):
    """Cases that cannot be read; the text says where and why."""


class Case(BaseModel):
    """One case."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """What is tried."""
    expect: Literal["alert", "nothing"]
    """Whether the rule must alert."""
    events: list[dict[str, str | int | float | None]] = Field(min_length=1)
    """The events, in order."""


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What became of a case.

    Attributes:
        name: Its name.
        passed: Whether it came as expected.
        reason: What came instead.
    """

    name: str
    passed: bool
    reason: str = ""


def read_cases(text: bytes | str) -> list[Case]:
    """The cases of a file.

    Raises:
        CaseError: It cannot be read.
    """
    try:
        return TypeAdapter(list[Case]).validate_python(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise CaseError(f"not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise CaseError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def run_case(rules: RuleSet, case: Case) -> CaseResult:
    """Try a case against the rules of one file."""
    default = _category(rules.rules[0].stream) if rules.rules else taxonomy.CATEGORIES[0]
    correlators = [Correlator(each) for each in rules.correlations]
    told: list[str] = []
    for number, written in enumerate(case.events):
        fields = dict(written)
        category = str(fields.pop("category", default))
        at_ns = int(float(fields.pop("at", number) or 0) * _NS_PER_S)
        try:
            facts = facts_of(fields)
        except CaseError as error:
            return CaseResult(case.name, passed=False, reason=str(error))
        for rule in rules.rules:
            if rule.stream in taxonomy.STREAMS_OF.get(category, ()) and compile_node(rule.condition)(*facts):
                told += _told(rule, facts, at_ns, correlators)
    if bool(told) == (case.expect == "alert"):
        return CaseResult(case.name, passed=True)
    return CaseResult(case.name, passed=False, reason=f"alerted: {', '.join(told)}" if told else "no alert")


def facts_of(fields: Mapping[str, Any]) -> Facts:
    """Facts by the names of fields.

    Raises:
        CaseError: No event has such a field.
    """
    made = Facts([None] * taxonomy.SLOTS, [""] * taxonomy.SLOTS)
    for name, value in fields.items():
        field = taxonomy.BY_NAME.get(name)
        if field is None:
            raise CaseError(f"no event has a field {name}")
        made.values[field.slot] = value
        made.texts[field.slot] = "" if value is None else str(value).casefold()
    for path, name_slot in taxonomy.NAME_SLOTS.items():
        made.texts[name_slot] = made.texts[path].rpartition("/")[2]
    made.texts[taxonomy.EVERYTHING] = "\n".join(made.texts[: taxonomy.IMAGE_NAME])
    return made


def _told(rule: EventRule, facts: Facts, at_ns: int, correlators: list[Correlator]) -> list[str]:
    told = [rule.rule.title] if rule.alerts else []
    fed = [each for each in correlators if rule.rule.id in each.rule.members]
    return told + [each.rule.rule.title for each in fed if each.take(_NODE, rule.rule.id, facts, at_ns)]


def _category(stream: Stream) -> str:
    return next(name for name, streams in taxonomy.STREAMS_OF.items() if stream in streams)
