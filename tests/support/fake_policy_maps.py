# SPDX-License-Identifier: Apache-2.0
"""The kernel's maps of profiles in memory, as sensor.kernel.policy_maps.PolicyMaps has them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sensor.kernel.errors import KernelError
from sensor.kernel.policy_state import (
    CONTENT_BYTES,
    GrantsValue,
    LearnedKey,
    LearnedValue,
    PolicyValue,
    ProgramKey,
    RulesetValue,
)
from sensor.policy.tables import POLICY_OF_TAG

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from sensor.policy.layout import TrieKind

Items = dict[bytes, int]


class FakePolicyMaps:
    """``log`` is every write in order; ``break_after`` is how many more of them succeed.

    ``on_write`` runs before each, so that a test can look at, or copy, what a crash would leave.
    """

    def __init__(self) -> None:
        self.slots: dict[int, int] = {}
        self.settling: dict[int, int] = {}
        self.policy_array: dict[int, PolicyValue] = {}
        self.ruleset_array: dict[int, RulesetValue] = {}
        self.tries: dict[tuple[TrieKind, int], Items] = {}
        self.pending: dict[tuple[TrieKind, int], Items] = {}
        self.ids: dict[bytes, int] = {}
        self.rules: dict[ProgramKey, GrantsValue] = {}
        self.learned_addresses: dict[LearnedKey, LearnedValue] = {}
        self.expected: dict[str, int] = {}
        self.identified = 0
        self.log: list[str] = []
        self.break_after: int | None = None

    def after_a_crash(self) -> FakePolicyMaps:
        """A copy of what is in the kernel, without what the process still held."""
        copy = FakePolicyMaps()
        for name in (
            "slots",
            "policy_array",
            "ruleset_array",
            "tries",
            "ids",
            "rules",
            "learned_addresses",
            "expected",
        ):
            setattr(copy, name, dict(getattr(self, name)))
        return copy

    def set_policy_slot(self, slot: int, tag: int) -> None:
        self.flush()
        self._write("set_policy_slot")
        self.slots[slot] = tag

    def set_settling(self, slot: int, until_ns: int) -> None:
        self._write("set_settling")
        self.settling[slot] = until_ns

    def policy_slots(self) -> Iterator[tuple[int, int]]:
        yield from list(self.slots.items())

    def write_policy(self, index: int, value: PolicyValue | None) -> None:
        self._write("write_policy")
        if value is None:
            self.policy_array.pop(index, None)
        else:
            self.policy_array[index] = value

    def policies(self) -> Iterator[tuple[int, PolicyValue]]:
        yield from list(self.policy_array.items())

    def write_ruleset(self, index: int, value: RulesetValue) -> None:
        self._write("write_ruleset")
        self.ruleset_array[index] = value

    def rulesets(self) -> Iterator[tuple[int, RulesetValue]]:
        yield from list(self.ruleset_array.items())

    def load_trie(self, kind: TrieKind, index: int, items: Iterable[tuple[bytes, int]]) -> None:
        self._write("load_trie")
        self.pending[kind, index] = dict(items)

    def flush(self) -> None:
        if self.pending:
            self._write("flush")
            self.tries.update(self.pending)
            self.pending.clear()

    def drop_rulesets(self, indices: Collection[int]) -> None:
        self.flush()
        for index in indices:
            self._write("drop_ruleset")
            self.ruleset_array.pop(index, None)
            for key in [key for key in self.tries if key[1] == index]:
                del self.tries[key]

    def set_program_id(self, path: bytes, program: int) -> None:
        self._write("set_program_id")
        self.ids[path] = program

    def program_ids(self) -> Iterator[tuple[bytes, int]]:
        yield from list(self.ids.items())

    def drop_program_id(self, path: bytes) -> bool:
        self._write("drop_program_id")
        return self.ids.pop(path, None) is not None

    def identify_programs(self) -> None:
        self._write("identify_programs")
        self.identified += 1

    def set_program_rule(self, key: ProgramKey, value: GrantsValue) -> None:
        self._write("set_program_rule")
        self.rules[key] = value

    def program_rules(self) -> Iterator[tuple[ProgramKey, GrantsValue]]:
        yield from list(self.rules.items())

    def drop_program_rule(self, key: ProgramKey) -> bool:
        self._write("drop_program_rule")
        return self.rules.pop(key, None) is not None

    def learned(self) -> Iterator[tuple[LearnedKey, LearnedValue]]:
        yield from list(self.learned_addresses.items())

    def drop_learned(self, key: LearnedKey) -> bool:
        self._write("drop_learned")
        return self.learned_addresses.pop(key, None) is not None

    def set_expected_workload(self, cgroup_name: str, slot: int) -> None:
        self._write("set_expected_workload")
        self.expected[cgroup_name] = slot

    def expected_workloads(self) -> Iterator[tuple[str, int]]:
        yield from list(self.expected.items())

    def drop_expected_workload(self, cgroup_name: str) -> bool:
        self._write("drop_expected_workload")
        return self.expected.pop(cgroup_name, None) is not None

    def _write(self, name: str) -> None:
        if self.break_after == 0:
            raise KernelError(f"{name} refused", "make room")
        if self.break_after is not None:
            self.break_after -= 1
        self.log.append(name)

    # What a test sees through a slot, as a program in the kernel would.

    def policy_of(self, slot: int) -> PolicyValue | None:
        """The policy a slot leads to; it must be there."""
        index = self.slots.get(slot, 0) & POLICY_OF_TAG
        return self.policy_array[index] if index else None

    def whole(self, slot: int) -> bool:
        """Whether all a slot leads to is there: a complete policy, and complete rule sets."""
        index = self.slots.get(slot, 0) & POLICY_OF_TAG
        if not index:
            return True
        policy = self.policy_array.get(index)
        if policy is None or policy.content == bytes(CONTENT_BYTES):
            return False
        grants = [policy.grants, *(value for key, value in self.rules.items() if key.policy == index)]
        rulesets = [self.ruleset_array.get(each) for value in grants for each in value.rulesets]
        return all(each is not None and each.content != bytes(CONTENT_BYTES) for each in rulesets)

    def ruleset_of(self, index: int) -> tuple[RulesetValue, dict[TrieKind, Items]]:
        """A rule set and its tries; the value without what depends on its history."""
        tries = {kind: items for (kind, at), items in self.tries.items() if at == index}
        return dataclasses.replace(self.ruleset_array[index], previous=0), tries
