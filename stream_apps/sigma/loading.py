# SPDX-License-Identifier: Apache-2.0
"""Rule files: read, judged one by one, and put together.

Input: texts with names (files of a directory, or values of a topic). Output: a :class:`RuleSet` of all sound
rules, and for each document a :class:`Verdict`: loaded, for other logs than ours, or refused with line and
reason. One bad document never costs another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from stream_apps.sigma import parsing
from stream_apps.sigma.cases import CASES_SUFFIX
from stream_apps.sigma.errors import MissingRuleError, OtherSourceError, RuleRefusedError
from stream_apps.sigma.parsing import Correlated
from stream_apps.sigma.resolve import resolve
from stream_apps.sigma.ruleset import EventRule, RuleSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from stream_apps.sigma.correlation import Correlation
    from stream_apps.sigma.parsing import Document, Parsed
    from stream_apps.sigma.translate import Surroundings

# SigmaHQ's largest is a tenth of it.
MAX_RULE_BYTES: Final = 1024 * 1024
_SUFFIXES: Final = (".yml", ".yaml")

Status = Literal["loaded", "elsewhere", "refused"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one document.

    Attributes:
        source: The name of its text.
        line: Where it begins, or where the reason is.
        status: loaded; elsewhere: sound, and for logs that are not ours; refused.
        rule_id: Its id, or empty.
        title: Its title, or empty.
        reason: Why it was not loaded.
        warnings: What is odd about it.
        waits: It is refused because a rule it is about was not loaded, which may come.
    """

    source: str
    line: int
    status: Status
    rule_id: str = ""
    title: str = ""
    reason: str = ""
    warnings: tuple[str, ...] = ()
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Loaded:
    """Rules and verdicts, in the order of the texts."""

    rules: RuleSet
    verdicts: tuple[Verdict, ...]


def files_of(directory: Path) -> Iterator[tuple[str, bytes]]:
    """The rule files below a directory (or one file), by name, each with its bytes; cases are left out.

    Raises:
        OSError: Something cannot be read.
    """
    if not directory.is_dir():
        yield str(directory), _read(directory)
        return
    for path in sorted(directory.rglob("*")):
        is_rule = path.suffix in _SUFFIXES and not path.stem.endswith(CASES_SUFFIX)
        # A mounted ConfigMap has each file a second time, in a hidden directory that its link points to.
        hidden = any(each.startswith(".") for each in path.relative_to(directory).parts)
        if is_rule and not hidden and path.is_file():
            yield str(path), _read(path)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_RULE_BYTES + 1)


Read = list["tuple[Document, Parsed | Correlated | RuleRefusedError]"]
"""The documents of a text, each parsed or refused."""
Cache = dict[tuple[str, "bytes | str"], "Read | RuleRefusedError"]
"""What became of texts before."""


def load(
    texts: Iterable[tuple[str, bytes | str]], around: Surroundings, cache: Cache | None = None
) -> Loaded:
    """Load all texts; what refers to another rule finds it in any of them.

    Args:
        texts: Names and texts.
        around: What the configuration adds.
        cache: What was parsed before, with the same surroundings; what is parsed now is put there, and what
            is not among the texts is dropped from it.
    """
    known = cache if cache is not None else {}
    wanted = list(texts)
    for gone in known.keys() - set(wanted):
        del known[gone]
    return _Loading(around, known).run(wanted)


def _read_text(source: str, text: bytes | str, around: Surroundings) -> Read | RuleRefusedError:
    if len(text) > MAX_RULE_BYTES:
        return RuleRefusedError(f"larger than {MAX_RULE_BYTES} bytes", (1,))
    try:
        documents = parsing.documents(source, text)
    except RuleRefusedError as error:
        return error
    found: Read = []
    for each in documents:
        try:
            found.append((each, parsing.parse(each, around)))
        except RuleRefusedError as error:
            found.append((each, error))
    return found


class _Loading:
    """One load: what was found so far."""

    def __init__(self, around: Surroundings, cache: Cache) -> None:
        self._around = around
        self._cache = cache
        self._rules: dict[str, EventRule] = {}
        self._correlations: list[Correlation] = []
        self._origins: dict[str, str] = {}
        # Verdicts by the order of their documents; correlations get theirs last.
        self._verdicts: list[Verdict | None] = []
        self._waiting: list[tuple[int, Document, Correlated]] = []

    def run(self, texts: Iterable[tuple[str, bytes | str]]) -> Loaded:
        for source, text in texts:
            self._take(source, text)
        silent: set[str] = set()
        for place, document, correlated in self._waiting:
            try:
                self._correlations.append(resolve(correlated, self._rules))
            except RuleRefusedError as error:
                self._verdicts[place] = _refusal(document, error)
                continue
            self._verdicts[place] = _acceptance(document, correlated.warnings)
            if not correlated.generate:
                silent.update(self._correlations[-1].members)
        rules = [_silenced(each) if rule_id in silent else each for rule_id, each in self._rules.items()]
        verdicts = tuple(each for each in self._verdicts if each is not None)
        return Loaded(RuleSet(rules, self._correlations), verdicts)

    def _take(self, source: str, text: bytes | str) -> None:
        read = self._cache.get((source, text))
        if read is None:
            read = self._cache[source, text] = _read_text(source, text, self._around)
        if isinstance(read, RuleRefusedError):
            line = int(read.place[0]) if read.place else 1
            self._verdicts.append(Verdict(source, line, "refused", reason=str(read)))
            return
        for document, parsed in read:
            self._verdicts.append(None)
            self._verdicts[-1] = self._judge(document, parsed)

    def _judge(self, document: Document, parsed: Parsed | Correlated | RuleRefusedError) -> Verdict | None:
        if isinstance(parsed, RuleRefusedError):
            return _refusal(document, parsed)
        rule_id = parsed.rule.id
        if rule_id in self._origins:
            return _refusal(document, RuleRefusedError(f"{self._origins[rule_id]} has the same id", ("id",)))
        self._origins[rule_id] = document.source
        if isinstance(parsed, Correlated):
            self._waiting.append((len(self._verdicts) - 1, document, parsed))
            return None
        self._rules[rule_id] = parsed.event_rule
        return _acceptance(document, parsed.warnings)


def _acceptance(document: Document, warnings: tuple[str, ...]) -> Verdict:
    return Verdict(
        document.source, document.line, "loaded", document.rule_id, document.title, warnings=warnings
    )


def _refusal(document: Document, error: RuleRefusedError) -> Verdict:
    status: Status = "elsewhere" if isinstance(error, OtherSourceError) else "refused"
    line = document.line_of(error.place)
    waits = isinstance(error, MissingRuleError)
    return Verdict(document.source, line, status, document.rule_id, document.title, str(error), waits=waits)


def _silenced(rule: EventRule) -> EventRule:
    return EventRule(rule.rule, rule.name, rule.stream, rule.condition, alerts=False)
