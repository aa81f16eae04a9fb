# SPDX-License-Identifier: Apache-2.0
"""The rules in force: those of files, and over them those that were published.

Input: texts. Output: a :class:`RuleSet` that is replaced whole, and the version it is. A text that cannot be
used is refused and what it would have replaced stays; what was withdrawn is gone. Not thread-safe.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Final

from stream_apps.sigma.errors import RuleRefusedError
from stream_apps.sigma.loading import load
from stream_apps.sigma.ruleset import RuleSet

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_apps.sigma.loading import Cache, Verdict
    from stream_apps.sigma.translate import Surroundings

# Published rules, beside those of files; SigmaHQ has about 4,000 in all.
MAX_PUBLISHED: Final = 10_000
_VERSION_DIGITS: Final = 12
_NS_PER_S: Final = 1_000_000_000


class RuleBook:
    """Rules by where they come from.

    Attributes:
        rules: All in force.
        version: Digest of the texts in force.
        verdicts: What became of each document when the rules were last put together.
        counts: What was taken and refused.
        users: Names of user ids.
    """

    def __init__(self, around: Surroundings) -> None:
        self.rules = RuleSet()
        self.version = ""
        self.verdicts: tuple[Verdict, ...] = ()
        self.counts: Counter[str] = Counter()
        self._around = around
        self.users = around.users
        self._files: list[tuple[str, bytes | str]] = []
        self._published: dict[str, bytes] = {}
        self._stale = False
        self._cache: Cache = {}

    def base(self, texts: Iterable[tuple[str, bytes | str]]) -> None:
        """Take the rules of files; they replace those of the files before."""
        self._files = list(texts)
        self._put_together()

    def publish(self, key: str, text: bytes) -> None:
        """Take a published text under its key; :meth:`settle` puts it in force.

        Raises:
            RuleRefusedError: It holds a rule that cannot be used; the one before it stays.
        """
        if key not in self._published and len(self._published) >= MAX_PUBLISHED:
            raise self._refused(f"more than {MAX_PUBLISHED} rules are published")
        # Alone, so that what it refers to may come later: a correlation is judged when all are put together.
        alone: Cache = {}
        for verdict in load([(key, text)], self._around, alone).verdicts:
            if verdict.status != "loaded" and not verdict.waits:
                raise self._refused(f"line {verdict.line}: {verdict.reason}")
        self._cache |= alone
        self.counts["rules_taken"] += 1
        self._published[key] = text
        self._stale = True

    def withdraw(self, key: str) -> None:
        """A published text is withdrawn; unknown ones too."""
        self.counts["rules_withdrawn"] += 1
        self._stale = self._published.pop(key, None) is not None or self._stale

    @property
    def remembers_s(self) -> float:
        """How far back the correlations of files look, seconds."""
        return max((each.timespan_ns for each in self.rules.correlations), default=0) / _NS_PER_S

    def settle(self) -> bool:
        """Put what was published since in force; whether anything changed."""
        if self._stale:
            self._put_together()
            return True
        return False

    def _refused(self, reason: str) -> RuleRefusedError:
        self.counts["rules_refused"] += 1
        return RuleRefusedError(reason)

    def _put_together(self) -> None:
        # Published ones first: of two rules with one id the first is taken.
        texts = [*sorted(self._published.items()), *self._files]
        loaded = load(texts, self._around, self._cache)
        self.rules, self.verdicts = loaded.rules, loaded.verdicts
        digest = hashlib.sha256()
        for _, text in texts:
            data = text if isinstance(text, bytes) else text.encode()
            digest.update(hashlib.sha256(data).digest())
        self.version = digest.hexdigest()[:_VERSION_DIGITS]
        self._stale = False
