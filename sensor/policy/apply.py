# SPDX-License-Identifier: Apache-2.0
"""Brings the kernel to the policies that are wanted: built beside, switched in one write, freed later.

Input: policies by slot, and who can compile their rule sets. Output: the maps; for each slot that could not
be switched, why, while what it had stays in force. Killed anywhere: each slot has its old policy or its new
one, never parts of both, for nothing a slot leads to is ever changed.

Failure of the kernel is told as :class:`~sensor.policy.errors.NotAppliedError`, with the limit that was met.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sensor.kernel.errors import KernelError
from sensor.policy.adopt import read_tables
from sensor.policy.build import Builder, kernel_failures
from sensor.policy.errors import NotAppliedError
from sensor.policy.retire import Retirement
from sensor.policy.tables import TAG_NUMBER_SHIFT, Tables

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from sensor.policy.policy import Policy
    from sensor.policy.ports import PolicyMaps, RuleSource


class PolicyTables:
    """The one writer of rule sets, policies, program ids and slots.

    ``counters`` is read by the metrics.
    """

    def __init__(self, maps: PolicyMaps) -> None:
        self._maps = maps
        self._take_over(Tables())
        self.counters = {"switched": 0, "not_applied": 0, "rulesets_built": 0, "freed": 0, "free_failed": 0}

    def _take_over(self, tables: Tables) -> None:
        self._tables = tables
        self._builder = Builder(self._maps, tables)
        self._retirement = Retirement(self._maps, tables, self._builder)
        # Ids that running processes may not have yet: who gave them may have been killed before that.
        self._unidentified = bool(tables.programs)

    def adopt(self) -> int:
        """Take over what an earlier sensor left; how many slots are in force.

        Raises:
            NotAppliedError: The kernel's maps could not be read.
        """
        with kernel_failures("adoption"):
            self._take_over(read_tables(self._maps))
        return len(self._tables.slots)

    def in_force(self, slot: int) -> bytes | None:
        """The content of a slot's policy; None: it has none. Empty: one that is not complete."""
        held = self._tables.in_force(slot)
        return None if held is None else held.content

    def slots(self) -> frozenset[int]:
        """The slots that have a policy."""
        return frozenset(self._tables.slots)

    def usage(self) -> dict[str, int]:
        """How many entries the maps hold, for the metrics."""
        return {
            "rulesets": len(self._tables.rulesets),
            "policies": len(self._tables.policies),
            "programs": len(self._tables.programs),
            "slots": len(self._tables.slots),
        }

    def apply(
        self,
        wanted: Mapping[int, Policy | None],
        source: RuleSource,
        settling: tuple[Collection[int], int] = ((), 0),
    ) -> dict[int, NotAppliedError]:
        """Give slots their policies (None: none).

        Args:
            wanted: By slot. Those that have it already are left alone.
            source: Compiles the rule sets that the kernel does not have.
            settling: Slots of workloads that run, and until when (boot time) those of them that get their
                first policy settle.

        Returns:
            The slots that stay as they were, and why.
        """
        changes = {
            slot: policy
            for slot, policy in wanted.items()
            if self.in_force(slot) != (policy.content if policy else None)
        }
        failed = self._build_rulesets(changes, source)
        self._name_programs(changes, failed)
        for slot, policy in changes.items():
            if slot not in failed:
                try:
                    if policy and slot in settling[0] and slot not in self._tables.slots:
                        self._settle(slot, settling[1])
                    self._switch(slot, policy)
                except NotAppliedError as error:
                    failed[slot] = error
        self.counters["not_applied"] += len(failed)
        if failed:
            self._retirement.hurry()
        return failed

    def _build_rulesets(
        self, changes: Mapping[int, Policy | None], source: RuleSource
    ) -> dict[int, NotAppliedError]:
        missing: dict[bytes, int] = {}
        for slot, policy in changes.items():
            if policy and self._tables.policy(policy.content) is None:
                for content, previous in self._replaced(slot, policy):
                    if self._tables.ruleset(content) is None:
                        missing[content] = previous or missing.get(content, 0)
        if not missing:
            return {}
        before = len(self._tables.rulesets)
        errors = self._builder.build_rulesets(source(missing.keys()), missing)
        self.counters["rulesets_built"] += len(self._tables.rulesets) - before
        return {
            slot: errors[content]
            for slot, policy in changes.items()
            if policy
            for content in policy.rule_sets()
            if content in errors
        }

    def _replaced(self, slot: int, policy: Policy) -> Iterator[tuple[bytes, int]]:
        """Each rule set of a policy with the one of the same program that it replaces, or 0.

        What was learned under that one counts on where the name is still allowed. With several replaced at
        once a wrong pair only makes a program ask again.
        """
        held, tables = self._tables.in_force(slot), self._tables
        programs = {(key.program, key.script): value for key, value in held.programs.items()} if held else {}
        for program, grants in ((None, policy.default), *policy.programs):
            before = held.default if held else None
            if program:
                before = programs.get(self._builder.ids(program), before)
            kept = {tables.ruleset(content) for content in grants.contents}
            gone = [each for each in (before.rulesets if before else ()) if each not in kept]
            named = [each for each in gone if each in tables.rulesets and tables.rulesets[each].named]
            last = 0 if tables.crowded else next(iter(named), 0)
            rest = iter(named)
            for content in grants.contents:
                if tables.ruleset(content) is None:
                    last = next(rest, last) if last else 0
                    yield content, last

    def _name_programs(
        self, changes: Mapping[int, Policy | None], failed: dict[int, NotAppliedError]
    ) -> None:
        """Give programs their ids, and to what runs already too, before rules for them are in force."""
        known = len(self._tables.programs)
        for slot, policy in changes.items():
            if slot not in failed and policy:
                try:
                    self._builder.name_programs([program for program, _ in policy.programs])
                except NotAppliedError as error:
                    failed[slot] = error
        self._unidentified |= len(self._tables.programs) > known
        if not self._unidentified:
            return
        try:
            with kernel_failures("program ids"):
                self._maps.identify_programs()
            self._unidentified = False
        except NotAppliedError as error:
            failed |= {slot: error for slot, policy in changes.items() if policy and policy.programs}

    def _settle(self, slot: int, until_ns: int) -> None:
        with kernel_failures("settling"):
            self._maps.set_settling(slot, until_ns)

    def _switch(self, slot: int, policy: Policy | None) -> None:
        index = 0
        if policy:
            index = self._tables.policy(policy.content) or self._builder.build_policy(policy)
        with kernel_failures("slots"):
            tag = self._tables.tag_number + 1 << TAG_NUMBER_SHIFT | index
            self._maps.set_policy_slot(slot, tag)
        self._tables.tag_number += 1
        self.counters["switched"] += 1
        if index:
            self._tables.slots[slot] = index
        else:
            self._tables.slots.pop(slot, None)

    def collect(self, now_ns: int) -> int:
        """Free what no slot has led to for a while; how many entries. To be called every second or so.

        Args:
            now_ns: Any clock that only goes forward.
        """
        try:
            freed = self._retirement.collect(now_ns)
        except KernelError:
            self.counters["free_failed"] += 1  # it stays where it is and is tried again
            return 0
        self.counters["freed"] += freed
        return freed
