# SPDX-License-Identifier: Apache-2.0
"""One text as documents, and one document as a rule: YAML with its lines, then pySigma, then ``translate``.

Failure: :class:`RuleRefusedError` with the place in the document, which ``Document.line_of`` turns into a
line. pySigma says what is wrong and rarely where; ``_located`` tries the parts of a detection one by one to
find out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml
from sigma.correlations import SigmaCorrelationRule
from sigma.exceptions import (
    SigmaConditionError,
    SigmaDateError,
    SigmaError,
    SigmaIdentifierError,
    SigmaLevelError,
    SigmaLogsourceError,
    SigmaModifiedError,
    SigmaNameError,
    SigmaRelatedError,
    SigmaStatusError,
    SigmaTagError,
    SigmaTitleError,
)
from sigma.rule import SigmaDetectionItem, SigmaLogSource, SigmaRule
from sigma.rule.base import check_alias_expansion

from stream_apps.detect.attack import TECHNIQUES, is_newer
from stream_apps.detect.attack import VERSION as ATTACK_VERSION
from stream_apps.detect.rule import Rule, Severity
from stream_apps.sigma.errors import Place, RuleRefusedError
from stream_apps.sigma.ruleset import ID_PREFIX, EventRule
from stream_apps.sigma.translate import Translator, condition_of, streams_of, words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sigma.rule import SigmaRuleBase

    from stream_apps.sigma.translate import Surroundings

# What a parser meets in a document of the wrong shape, beside its own errors.
_SHAPE_ERRORS: Final = (AttributeError, TypeError, KeyError, ValueError, RecursionError)
_TECHNIQUE: Final = re.compile(r"T\d{4}(\.\d{3})?")
_MAX_TITLE: Final = 256
_DEFAULT_SEVERITY: Final[Severity] = "MEDIUM"
_PLACES: Final[dict[type[SigmaError], Place]] = {
    SigmaTitleError: ("title",),
    SigmaIdentifierError: ("id",),
    SigmaNameError: ("name",),
    SigmaLevelError: ("level",),
    SigmaStatusError: ("status",),
    SigmaTagError: ("tags",),
    SigmaDateError: ("date",),
    SigmaModifiedError: ("modified",),
    SigmaRelatedError: ("related",),
    SigmaLogsourceError: ("logsource",),
    SigmaConditionError: ("detection", "condition"),
}
_OLD_STATUS: Final = ("deprecated", "unsupported")


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document.

    Attributes:
        source: The name of the text.
        line: Its first line.
        node: Its tree, with lines.
        content: Its content.
    """

    source: str
    line: int
    node: yaml.Node
    content: dict[str, Any]

    @property
    def rule_id(self) -> str:
        """Its id as written, or empty."""
        return str(self.content.get("id") or "")

    @property
    def title(self) -> str:
        """Its title as written, or empty."""
        return str(self.content.get("title") or "")

    def line_of(self, place: Place) -> int:
        """The line of a place, or of the nearest thing around it."""
        node, line = self.node, self.line
        for part in place:
            found = _child(node, part)
            if found is None:
                break
            line, node = found
        return line


@dataclass(frozen=True, slots=True)
class Parsed:
    """A rule on single events, ready."""

    event_rule: EventRule
    warnings: tuple[str, ...]

    @property
    def rule(self) -> Rule:
        """What its alerts say."""
        return self.event_rule.rule


@dataclass(frozen=True, slots=True)
class Correlated:
    """A correlation whose references are still names."""

    rule: Rule
    parsed: SigmaCorrelationRule
    warnings: tuple[str, ...]

    @property
    def generate(self) -> bool:
        """Whether the rules it is about alert by themselves too."""
        return self.parsed.generate


def documents(source: str, text: bytes | str) -> list[Document]:
    """The documents of a text.

    Raises:
        RuleRefusedError: Not YAML, or YAML that means something else than it shows; ``place`` is the line.
    """
    loader = yaml.CSafeLoader(text)
    found = []
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is None:
                continue
            _no_duplicates(node)
            content = loader.construct_document(node)
            line = node.start_mark.line + 1
            check_alias_expansion(content)
            if not isinstance(content, dict):
                raise RuleRefusedError("a rule is a mapping of title, logsource and detection", (line,))
            found.append(Document(source, line, node, content))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise RuleRefusedError(f"not YAML: {reason}", (mark.line + 1 if mark else 1,)) from error
    except SigmaError as error:
        raise RuleRefusedError(words(error), (1,)) from error
    except (RecursionError, ValueError, TypeError) as error:
        raise RuleRefusedError(f"not YAML: {error}", (1,)) from error
    finally:
        loader.dispose()
    if not found:
        raise RuleRefusedError("the file is empty", (1,))
    return found


def parse(document: Document, around: Surroundings) -> Parsed | Correlated:
    """The rule of a document.

    Raises:
        RuleRefusedError: It cannot be used, and why.
    """
    if "filter" in document.content:
        raise RuleRefusedError(
            "a Sigma filter; write an exclusion instead (detect.sigma.exclusions)", ("filter",)
        )
    if "action" in document.content:
        raise RuleRefusedError("rule collections with action are a thing of the past", ("action",))
    if "correlation" in document.content:
        parsed = _checked(document, SigmaCorrelationRule, around)
        return Correlated(_rule(parsed), parsed, _warnings(parsed))
    if isinstance(document.content.get("logsource"), dict):
        _check_source(document.content["logsource"])
    rule = _checked(document, SigmaRule, around)
    _check_expressions(document.content["detection"])
    try:
        stream, condition = condition_of(rule, around)
    except RuleRefusedError as error:
        raise _located(document, rule, around, error) from error
    event_rule = EventRule(_rule(rule), rule.name or "", stream, condition)
    return Parsed(event_rule, _warnings(rule))


def _checked(document: Document, kind: Any, around: Surroundings) -> Any:
    """What pySigma makes of it, or its first complaint."""
    try:
        rule = kind.from_dict(document.content, collect_errors=True)
    except SigmaError as error:
        raise RuleRefusedError(words(error), ("correlation",)) from error
    except _SHAPE_ERRORS as error:
        raise RuleRefusedError(f"not the shape of a Sigma rule: {words(error)}") from error
    if rule.errors:
        first = rule.errors[0]
        refusal = RuleRefusedError(words(first), _PLACES.get(type(first), ()))
        if refusal.place or kind is not SigmaRule:
            raise refusal from first
        raise _located(document, rule, around, refusal) from first
    if rule.id is None:
        raise RuleRefusedError("no id; give it a UUID: alerts, exclusions and responses go by it")
    if rule.taxonomy != "sigma":
        raise RuleRefusedError(f"fields of the taxonomy {rule.taxonomy}; ours is sigma", ("taxonomy",))
    return rule


def _check_expressions(detection: Any) -> None:
    """An expression is found anywhere; pySigma's startswith and endswith assume that it fits the whole."""
    for place, key, _ in _items(detection, ("detection",)):
        modifiers = (key or "").split("|")[1:]
        if "re" in modifiers and not {"startswith", "endswith"}.isdisjoint(modifiers):
            raise RuleRefusedError("write ^ or $ in the expression instead of startswith or endswith", place)


def _check_source(source: dict[str, Any]) -> None:
    """What is for other logs is said to be so, whatever else is wrong with it."""
    try:
        parsed = SigmaLogSource.from_dict(source)
    except (SigmaError, *_SHAPE_ERRORS) as error:
        raise RuleRefusedError(words(error), ("logsource",)) from error
    streams_of(parsed)


def _rule(parsed: SigmaRuleBase) -> Rule:
    title = " ".join(parsed.title.split())[:_MAX_TITLE]
    severity = _severity(parsed)
    attack = tuple(each for each in _techniques(parsed) if each in TECHNIQUES or is_newer(each))
    return Rule(f"{ID_PREFIX}{parsed.id}", title, severity, attack)


def _severity(parsed: SigmaRuleBase) -> Severity:
    match parsed.level.name if parsed.level is not None else "":
        case "INFORMATIONAL" | "LOW" | "MEDIUM" | "HIGH" | "CRITICAL" as name:
            return name
        case _:
            return _DEFAULT_SEVERITY


def _techniques(parsed: SigmaRuleBase) -> list[str]:
    names = [each.name.upper() for each in parsed.tags if each.namespace == "attack"]
    return [each for each in names if _TECHNIQUE.fullmatch(each)]


def _warnings(parsed: SigmaRuleBase) -> tuple[str, ...]:
    found = [
        f"{each} is newer than ATT&CK {ATTACK_VERSION}, and was not checked"
        if is_newer(each)
        else f"{each} is no technique of ATT&CK {ATTACK_VERSION}; alerts will not show it"
        for each in _techniques(parsed)
        if each not in TECHNIQUES
    ]
    if parsed.status is not None and str(parsed.status) in _OLD_STATUS:
        found.append(f"its status is {parsed.status}")
    if parsed.level is None:
        found.append(f"no level; alerts will be {_DEFAULT_SEVERITY}")
    return tuple(found)


def _located(
    document: Document, rule: SigmaRule, around: Surroundings, refusal: RuleRefusedError
) -> RuleRefusedError:
    """The refusal with the place of the part that alone is refused with the same words."""
    if refusal.place:
        return refusal
    detection = document.content.get("detection")
    if not isinstance(detection, dict):
        return RuleRefusedError(str(refusal), ("detection",))
    for place, key, value in _items(detection, ("detection",)):
        if _complaint(rule, around, key, value) == str(refusal):
            return RuleRefusedError(str(refusal), place)
    return RuleRefusedError(str(refusal), ("detection",))


def _items(node: Any, place: Place) -> Iterator[tuple[Place, str | None, Any]]:
    """The parts of a detection: key with modifiers (None: keywords), and value."""
    if isinstance(node, dict):
        for key, value in node.items():
            inner = (*place, key)
            if len(place) == 1 and key == "condition":
                continue
            if len(place) == 1:
                yield from _items(value, inner)
            else:
                yield inner, str(key), value
    elif isinstance(node, list):
        for number, each in enumerate(node):
            yield from _items(each, (*place, number))
    else:
        yield place, None, node


def _complaint(rule: SigmaRule, around: Surroundings, key: str | None, value: Any) -> str:
    try:
        item = SigmaDetectionItem.from_mapping(key, value)
        Translator(streams_of(rule.logsource)[-1], around).node(item.postprocess(rule.detection))
    except (SigmaError, RuleRefusedError) as error:
        return words(error)
    except _SHAPE_ERRORS as error:
        return f"not the shape of a Sigma rule: {words(error)}"
    return ""


def _no_duplicates(node: yaml.Node) -> None:
    """Refuse a key given twice: YAML takes the last and says nothing. Aliases are followed once."""
    pending, seen = [node], set()
    while pending:
        each = pending.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, yaml.SequenceNode):
            pending.extend(each.value)
        elif isinstance(each, yaml.MappingNode):
            keys = [key.value for key, _ in each.value if isinstance(key, yaml.ScalarNode)]
            for number, key in enumerate(keys):
                if key in keys[:number]:
                    line = each.value[number][0].start_mark.line + 1
                    raise RuleRefusedError(f"{key} is given twice; keep one", (line,))
            pending.extend(value for _, value in each.value)


def _child(node: yaml.Node, part: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value == str(part):
                return key.start_mark.line + 1, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        value = node.value[part]
        return value.start_mark.line + 1, value
    return None
