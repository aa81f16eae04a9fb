# SPDX-License-Identifier: Apache-2.0
"""The rules in force: those of files, and over them those that were published.

Input: texts. Output: a :class:`RuleSet` that is replaced whole, and the version it is. A text that cannot be
used is refused and what it would have replaced stays; what was withdrawn is gone. Not thread-safe.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from stream_apps.sigma.errors import RuleRefusedError
from stream_apps.sigma.loading import load
from stream_apps.sigma.ruleset import RuleSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stream_apps.sigma.loading import Cache, Verdict
    from stream_apps.sigma.translate import Surroundings

# Published rules, beside those of files; SigmaHQ has about 4,000 in all.
MAX_PUBLISHED: Final = 10_000
_VERSION_DIGITS: Final = 12
_NS_PER_S: Final = 1_000_000_000


Text = bytes | str


@dataclass(frozen=True, slots=True)
class Held:
    """Texts in force.

    Attributes:
        published: By key.
        sound: Files of which no rule was refused, by name.
    """

    published: Mapping[str, bytes]
    sound: Mapping[str, Text]


@dataclass(frozen=True, slots=True)
class Ready:
    """Files that were read and parsed, to go over to (:meth:`RuleBook.retune`).

    Attributes:
        around: What the configuration adds.
        files: Names and texts.
        cache: What became of the texts.
        kept: Files that have a rule that cannot be used now, and of which the text before goes on.
    """

    around: Surroundings
    files: tuple[tuple[str, Text], ...]
    cache: Cache
    kept: tuple[Verdict, ...] = ()


def make_ready(files: Iterable[tuple[str, Text]], around: Surroundings, held: Held) -> Ready:
    """Parse files, which takes a second for thousands. Touches no book: may run in another thread.

    A file whose new text has a rule that cannot be used goes on with its text before, if that was sound: a
    mistake must not cost what is in force. A file that is new is taken as it is, each of its rules by itself.
    """
    wanted = list(files)
    cache: Cache = {}
    published = sorted(held.published.items())
    verdicts = load([*published, *wanted], around, cache).verdicts
    own = {name for name, _ in wanted}
    refused = {
        each.source: each
        for each in reversed(verdicts)
        if each.status == "refused" and not each.waits and each.source in own
    }
    texts = dict(wanted)
    kept = [each for name, each in refused.items() if held.sound.get(name, texts[name]) != texts[name]]
    if kept:
        names = {each.source for each in kept}
        wanted = [(name, held.sound[name] if name in names else text) for name, text in wanted]
        load([*published, *wanted], around, cache)
    return Ready(around, tuple(wanted), cache, tuple(kept))


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
        self._put_together(list(texts))

    def retune(self, ready: Ready) -> None:
        """Go over to other files and surroundings; what was published stays, judged with these."""
        before = self._around, self.users, self._cache
        self._around, self.users = ready.around, ready.around.users
        self._cache = dict(ready.cache)
        try:
            self._put_together(list(ready.files))
        except Exception:
            self._around, self.users, self._cache = before
            raise

    def held(self) -> Held:
        """What is in force now, to make another base ready from, in another thread if need be."""
        sound = {each.source for each in self.verdicts} - {
            each.source for each in self.verdicts if each.status == "refused"
        }
        return Held(dict(self._published), {name: text for name, text in self._files if name in sound})

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

    def _put_together(self, files: list[tuple[str, bytes | str]] | None = None) -> None:
        files = self._files if files is None else files
        # Published ones first: of two rules with one id the first is taken.
        texts = [*sorted(self._published.items()), *files]
        loaded = load(texts, self._around, self._cache)
        self._files = files
        self.rules, self.verdicts = loaded.rules, loaded.verdicts
        digest = hashlib.sha256()
        for _, text in texts:
            data = text if isinstance(text, bytes) else text.encode()
            digest.update(hashlib.sha256(data).digest())
        self.version = digest.hexdigest()[:_VERSION_DIGITS]
        self._stale = False
