# SPDX-License-Identifier: Apache-2.0
"""A correlation rule whose references are looked up: from names of rules and fields to slots.

Failure: :class:`RuleRefusedError`: a rule or field it names is not there, or a stream cannot answer it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sigma.correlations import SigmaCorrelationCondition, SigmaCorrelationConditionOperator

from stream_apps.sigma.correlation import MAX_COUNT, Correlation
from stream_apps.sigma.errors import MissingRuleError, RuleRefusedError
from stream_apps.sigma.ruleset import ID_PREFIX
from stream_apps.sigma.translate import field_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sigma.correlations import SigmaCorrelationRule

    from stream_apps.sigma.correlation import CorrelationType
    from stream_apps.sigma.parsing import Correlated
    from stream_apps.sigma.ruleset import EventRule

_NS_PER_S: Final = 1_000_000_000
# State is rebuilt after a restart by reading back; a longer memory would not come back.
_MAX_TIMESPAN_S: Final = 86_400
_SECTION: Final = "correlation"


def resolve(correlated: Correlated, rules: Mapping[str, EventRule]) -> Correlation:
    """The correlation over the rules that were loaded.

    Raises:
        RuleRefusedError: It cannot be watched, and why.
    """
    parsed = correlated.parsed
    kind = _kind(parsed)
    members = _members(parsed, rules)
    if parsed.timespan.seconds > _MAX_TIMESPAN_S:
        raise RuleRefusedError(
            f"a timespan of more than {_MAX_TIMESPAN_S} s is not remembered", (_SECTION, "timespan")
        )
    least, field = _threshold(parsed, kind, len(set(members)))
    by_id = {each.rule.id: each for each in members}
    return Correlation(
        rule=correlated.rule,
        kind=kind,
        members=tuple(each.rule.id for each in members),
        timespan_ns=parsed.timespan.seconds * _NS_PER_S,
        group_by={rule_id: _group(parsed, rule_id, each) for rule_id, each in by_id.items()},
        least=least,
        value_slots=_values(parsed, field, by_id) if field else {},
    )


def _kind(parsed: SigmaCorrelationRule) -> CorrelationType:
    match str(parsed.type):
        case "event_count" | "value_count" | "temporal" | "temporal_ordered" as kind:
            return kind
        case other:
            raise RuleRefusedError(f"correlations of type {other} are not known here", (_SECTION, "type"))


def _members(parsed: SigmaCorrelationRule, rules: Mapping[str, EventRule]) -> list[EventRule]:
    found = []
    for number, each in enumerate(parsed.rules or []):
        wanted = each.reference
        known = rules.get(f"{ID_PREFIX}{wanted}") or next(
            (rule for rule in rules.values() if rule.name == wanted), None
        )
        if known is None:
            raise MissingRuleError(
                f"no rule {wanted} was loaded (correlations of correlations are not known here)",
                (_SECTION, "rules", number),
            )
        found.append(known)
    if not found:
        raise RuleRefusedError("it names no rules", (_SECTION, "rules"))
    return found


def _threshold(parsed: SigmaCorrelationRule, kind: str, members: int) -> tuple[int, str]:
    place = (_SECTION, "condition")
    condition = parsed.condition
    if not isinstance(condition, SigmaCorrelationCondition):
        raise RuleRefusedError("conditions with and, or and not are not known here", place)
    count = condition.count
    if condition.op is SigmaCorrelationConditionOperator.GT:
        least = int(count) + 1
    elif condition.op is SigmaCorrelationConditionOperator.GTE:
        least = int(count) + (count != int(count))
    else:
        raise RuleRefusedError(
            f"{condition.op.name.lower()}: a stream never knows that no more will come; use gt or gte", place
        )
    if not 1 <= least <= MAX_COUNT:
        raise RuleRefusedError(f"{least} is not between 1 and {MAX_COUNT}", place)
    if kind.startswith("temporal") and least > members:
        raise RuleRefusedError(f"{least} different rules of {members} can never match", place)
    if kind == "temporal_ordered" and least != members:
        raise RuleRefusedError("in order, all rules must match", place)
    field: Any = condition.fieldref
    if isinstance(field, list):
        raise RuleRefusedError("one field is counted, not several", (*place, "field"))
    return least, str(field) if field and kind == "value_count" else ""


def _group(parsed: SigmaCorrelationRule, rule_id: str, rule: EventRule) -> tuple[int, ...]:
    return tuple(_slot(parsed, name, rule_id, rule, "group-by") for name in parsed.group_by or [])


def _values(parsed: SigmaCorrelationRule, field: str, rules: Mapping[str, EventRule]) -> dict[str, int]:
    return {rule_id: _slot(parsed, field, rule_id, each, "condition") for rule_id, each in rules.items()}


def _slot(parsed: SigmaCorrelationRule, name: str, rule_id: str, rule: EventRule, part: str) -> int:
    aliased = parsed.aliases.aliases.get(name)
    if aliased is not None:
        own = [
            field
            for reference, field in aliased.mapping.items()
            if reference.reference in (rule_id.removeprefix(ID_PREFIX), rule.name)
        ]
        if not own:
            raise RuleRefusedError(
                f"the alias {name} says nothing of {rule.name or rule_id}", (_SECTION, "aliases", name)
            )
        name = own[0]
    try:
        return field_of(rule.stream, name).slot
    except RuleRefusedError as error:
        raise RuleRefusedError(f"{error} ({rule.name or rule_id})", (_SECTION, part)) from error
