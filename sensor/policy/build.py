# SPDX-License-Identifier: Apache-2.0
"""Writes rule sets and policies into free places of the kernel's maps, beside those in force.

Each place is written so that a sensor killed in the middle leaves nothing that its successor would take for
complete: the content, by which it would be recognised, comes with the last write. Failure:
:class:`~sensor.policy.errors.NotAppliedError`, and what was begun is removed again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from typing import TYPE_CHECKING, Final

from sensor.kernel.errors import KernelError
from sensor.kernel.policy_state import (
    CONTENT_BYTES,
    GrantsValue,
    PolicyValue,
    ProgramKey,
    RulesetValue,
)
from sensor.policy import layout
from sensor.policy.errors import NotAppliedError
from sensor.policy.limits import MAX_PROGRAMS
from sensor.policy.tables import HeldPolicy, HeldRuleset

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

    from sensor.policy.policy import Grants, Policy
    from sensor.policy.ports import PolicyMaps
    from sensor.policy.profile import Program
    from sensor.policy.rules import RuleSet
    from sensor.policy.tables import Tables

_NO_PROTOCOLS: Final = ((0, 0, 0, 0), (0, 0, 0, 0))
# A place that is being written or emptied: not empty, so a successor finds it, and without a content.
_UNFINISHED: Final = RulesetValue(_NO_PROTOCOLS, bytes(CONTENT_BYTES), layout.RAW_SOCKETS, (0, 0))
_KEPT: Final = HeldRuleset(b"", named=False)
# Rule sets, and rules, that are in memory at once.
_PART_RULESETS: Final = 64
_PART_RULES: Final = 50_000


class Builder:
    """Beside what is in force, never in it."""

    def __init__(self, maps: PolicyMaps, tables: Tables) -> None:
        self._maps = maps
        self._tables = tables

    def build_rulesets(
        self, rule_sets: Iterable[RuleSet], previous: Mapping[bytes, int]
    ) -> dict[bytes, NotAppliedError]:
        """Put rule sets into free places, many at a time: the kernel waits for its programs once each time.

        Args:
            rule_sets: They are taken one by one, and not kept.
            previous: By content, index of the rule set one replaces.

        Returns:
            Why those are not there that could not be built, by content; nothing of them is left.
        """
        failed: dict[bytes, NotAppliedError] = {}
        for part in _parts(rule_sets):
            try:
                self._build(part, previous)
            except NotAppliedError:
                for rules in part:
                    try:
                        self._build([rules], previous)
                    except NotAppliedError as error:
                        failed[rules.content] = error
        return failed

    def _build(self, part: Sequence[RuleSet], previous: Mapping[bytes, int]) -> None:
        places: dict[int, RuleSet] = {}
        try:
            with kernel_failures("rule sets"):
                for rules in part:
                    index = self._tables.free_ruleset()
                    self._tables.add_ruleset(index, _KEPT)
                    places[index] = rules
                # What an earlier sensor may have left there, when it was killed in the middle.
                self._maps.drop_rulesets(list(places))
                for index, rules in places.items():
                    self._load(index, rules)
                self._maps.flush()
                for index, rules in places.items():
                    self._finish(index, rules, previous.get(rules.content, 0))
        except NotAppliedError:
            self._give_up(list(places))
            raise

    def _load(self, index: int, rules: RuleSet) -> None:
        self._maps.write_ruleset(index, _UNFINISHED)
        for kind in layout.KINDS:
            if rules.count(kind):
                self._maps.load_trie(kind, index, rules.items(kind))

    def _finish(self, index: int, rules: RuleSet, previous: int) -> None:
        value = RulesetValue(rules.protocols, rules.content, rules.flags, rules.l7, previous)
        self._maps.write_ruleset(index, value)
        named = bool(rules.flags & layout.NAMES)
        self._tables.add_ruleset(index, HeldRuleset(rules.content, named, previous))

    def _give_up(self, indices: list[int]) -> None:
        # If they cannot be emptied their places stay taken: a trie that stayed would speak for the next.
        for index in indices:
            self._tables.add_ruleset(index, _KEPT)
        with contextlib.suppress(KernelError):
            self._maps.drop_rulesets(indices)
            for index in indices:
                self._tables.forget_ruleset(index)

    def remove_rulesets(self, indices: Sequence[int], kept: Container[int] = ()) -> None:
        """Empty places; the indices of some are kept for what was learned under them.

        Raises:
            KernelError: As it is; may be called again.
        """
        self._maps.drop_rulesets(indices)
        for index in indices:
            held = self._tables.rulesets[index]
            if index not in kept:
                self._tables.forget_ruleset(index)
                continue
            self._maps.write_ruleset(index, dataclasses.replace(_UNFINISHED, previous=held.previous))
            self._tables.add_ruleset(index, HeldRuleset(b"", held.named, held.previous))

    def name_programs(self, programs: Sequence[Program]) -> int:
        """Give the executables and scripts ids the kernel tells them by; how many are new.

        An id is a hash of the path: a process keeps it for life, so it never means another path.

        Raises:
            NotAppliedError: More paths than the kernel's map takes, or it refused.
        """
        ids = self._tables.programs
        keys = {layout.executable_key(program.path) for program in programs}
        keys |= {layout.script_key(program.script) for program in programs if program.script}
        new = sorted(keys - ids.keys())
        if len(ids) + len(new) > MAX_PROGRAMS:
            raise NotAppliedError(
                f"{len(new)} programs more, and {len(ids)} of {MAX_PROGRAMS} are in use on this node",
                "name fewer programs in its profiles",
            )
        taken = set(ids.values())
        with kernel_failures("program ids"):
            for key in new:
                number = next(each for each in _hashes(key) if each not in taken)
                self._maps.set_program_id(key, number)
                ids[key] = number
                taken.add(number)
        return len(new)

    def ids(self, program: Program) -> tuple[int, int]:
        """The ids of a program and its script; 0 for what has none."""
        ids = self._tables.programs
        script = ids.get(layout.script_key(program.script), 0) if program.script else 0
        return ids.get(layout.executable_key(program.path), 0), script

    def build_policy(self, policy: Policy) -> int:
        """Put a policy, whose rule sets and programs are in the kernel, into a free place.

        Raises:
            NotAppliedError: No place, or the kernel refused; then nothing of it is left.
        """
        index = self._tables.free_policy()
        default = self._value(policy.default)
        rules = {
            ProgramKey(index, *self.ids(program)): self._value(grants) for program, grants in policy.programs
        }
        try:
            with kernel_failures("policies and program rules"):
                for key, grants in rules.items():
                    self._maps.set_program_rule(key, grants)
                value = PolicyValue(default, policy.content, policy.generation, policy.flags)
                self._maps.write_policy(index, value)
        except NotAppliedError:
            # If it cannot be removed now it stays known, without a content, and goes like all that is unused.
            self._tables.add_policy(index, HeldPolicy(b"", default, rules))
            with contextlib.suppress(KernelError):
                self.remove_policy(index)
            raise
        self._tables.add_policy(index, HeldPolicy(policy.content, default, rules))
        return index

    def remove_policy(self, index: int) -> None:
        """Empty a policy's place.

        Raises:
            KernelError: As it is; may be called again.
        """
        self._maps.write_policy(index, None)
        for key in self._tables.policies[index].programs:
            self._maps.drop_program_rule(key)
        self._tables.forget_policy(index)

    def remove_program(self, path: bytes) -> None:
        """Forget a path that no policy names.

        Raises:
            KernelError: As it is; may be called again.
        """
        self._maps.drop_program_id(path)
        del self._tables.programs[path]

    def _value(self, grants: Grants) -> GrantsValue:
        indices = [self._tables.ruleset(content) for content in grants.contents]
        missing = indices.count(None)
        if missing:
            raise NotAppliedError(f"{missing} of its rule sets could not be built")
        return GrantsValue(tuple(index for index in indices if index), grants.mode)


@contextlib.contextmanager
def kernel_failures(what: str) -> Iterator[None]:
    """Tell a kernel's refusal as ours."""
    try:
        yield
    except KernelError as error:
        raise NotAppliedError(f"{what}: kernel: {error.message}", error.cure) from error


def _parts(rule_sets: Iterable[RuleSet]) -> Iterator[list[RuleSet]]:
    part: list[RuleSet] = []
    rules = 0
    for each in rule_sets:
        part.append(each)
        rules += sum(each.count(kind) for kind in layout.KINDS)
        if len(part) == _PART_RULESETS or rules >= _PART_RULES:
            yield part
            part, rules = [], 0
    if part:
        yield part


def _hashes(key: bytes) -> Iterator[int]:
    """Ids for a path, the first of which is free but for one in millions."""
    for attempt in range(256):
        number = int.from_bytes(hashlib.sha256(bytes((attempt,)) + key).digest()[:4], "little")
        if number:
            yield number
