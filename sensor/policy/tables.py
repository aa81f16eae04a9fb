# SPDX-License-Identifier: Apache-2.0
"""What the kernel's maps of profiles hold, by index and by content. Pure bookkeeping: it writes nothing.

A few words for each rule set and policy, whatever it holds. Two with the same content are one. An index is
not given out again before whatever might still look at it is gone (retire.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sensor.policy.errors import NotAppliedError
from sensor.policy.limits import MAX_POLICIES, MAX_RULESETS, SPARE_RULESETS

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping

    from sensor.kernel.policy_state import GrantsValue, ProgramKey

POLICY_OF_TAG: Final = 0xFFFFFFFF
TAG_NUMBER_SHIFT: Final = 32
# How many versions of a rule set back an address may have been learned and still count.
MAX_HISTORY: Final = 3


@dataclass(frozen=True, slots=True)
class HeldRuleset:
    """A rule set in the kernel.

    Attributes:
        content: Empty: only the index is kept, for what was learned under it.
        named: It learns addresses.
        previous: Index of the rule set it replaced; 0: none.
    """

    content: bytes
    named: bool
    previous: int = 0


@dataclass(frozen=True, slots=True)
class HeldPolicy:
    """A policy in the kernel.

    Attributes:
        content: Empty: it is not complete.
        default: Its grants.
        programs: Its entries in program_rules.
    """

    content: bytes
    default: GrantsValue
    programs: Mapping[ProgramKey, GrantsValue]

    def rulesets(self) -> Iterator[int]:
        """Indices of every rule set it leads to."""
        yield from self.default.rulesets
        for grants in self.programs.values():
            yield from grants.rulesets


@dataclass(frozen=True, slots=True)
class Live:
    """The indices and ids that slots lead to; history are those kept for what was learned under them."""

    policies: frozenset[int]
    rulesets: frozenset[int]
    history: frozenset[int]
    programs: frozenset[int]


@dataclass(slots=True)
class Tables:
    """All of it.

    Attributes:
        rulesets: By index.
        policies: By index.
        slots: Slot: index of its policy. Slots without one are not here.
        programs: Path key: id.
        tag_number: The highest that any slot has.
    """

    rulesets: dict[int, HeldRuleset] = field(default_factory=dict)
    policies: dict[int, HeldPolicy] = field(default_factory=dict)
    slots: dict[int, int] = field(default_factory=dict)
    programs: dict[bytes, int] = field(default_factory=dict)
    tag_number: int = 0
    _next_ruleset: int = 0
    _next_policy: int = 0
    _ruleset_of: dict[bytes, int] = field(default_factory=dict)
    _policy_of: dict[bytes, int] = field(default_factory=dict)

    def add_ruleset(self, index: int, held: HeldRuleset) -> None:
        """The kernel holds a rule set, or its index is kept."""
        self.forget_ruleset(index)
        self.rulesets[index] = held
        if held.content:
            self._ruleset_of[held.content] = index

    def forget_ruleset(self, index: int) -> None:
        """Its index is free."""
        held = self.rulesets.pop(index, None)
        if held and self._ruleset_of.get(held.content) == index:
            del self._ruleset_of[held.content]

    def add_policy(self, index: int, held: HeldPolicy) -> None:
        """The kernel holds a policy."""
        self.policies[index] = held
        if held.content:
            self._policy_of[held.content] = index

    def forget_policy(self, index: int) -> None:
        """Its index is free."""
        held = self.policies.pop(index, None)
        if held and self._policy_of.get(held.content) == index:
            del self._policy_of[held.content]

    def ruleset(self, content: bytes) -> int | None:
        """The index of a rule set, if the kernel has it."""
        return self._ruleset_of.get(content)

    def policy(self, content: bytes) -> int | None:
        """The index of a policy, if the kernel has it."""
        return self._policy_of.get(content)

    def in_force(self, slot: int) -> HeldPolicy | None:
        """The policy a slot leads to."""
        return self.policies.get(self.slots.get(slot, 0))

    @property
    def crowded(self) -> bool:
        """Whether rule sets get short; then the memory of former ones goes first."""
        return len(self.rulesets) > MAX_RULESETS - SPARE_RULESETS

    def free_ruleset(self) -> int:
        """An index for a new rule set.

        Raises:
            NotAppliedError: There is none.
        """
        self._next_ruleset = _free("rule sets", self._next_ruleset + 1, MAX_RULESETS, self.rulesets)
        return self._next_ruleset

    def free_policy(self) -> int:
        """An index for a new policy.

        Raises:
            NotAppliedError: There is none.
        """
        self._next_policy = _free("policies", self._next_policy + 1, MAX_POLICIES, self.policies)
        return self._next_policy

    def live(self) -> Live:
        """What slots lead to, now."""
        policies = frozenset(self.slots.values())
        held = [self.policies[index] for index in policies if index in self.policies]
        rulesets = _union(each.rulesets() for each in held)
        history, newest = set[int](), rulesets
        for _ in range(1 if self.crowded else MAX_HISTORY):
            newest = frozenset(self._previous(newest)) - rulesets - history
            history |= newest
        programs = _union((key.program, key.script) for each in held for key in each.programs)
        return Live(policies, rulesets, frozenset(history), programs)

    def _previous(self, rulesets: Iterable[int]) -> Iterator[int]:
        for index in rulesets:
            held = self.rulesets.get(index)
            if held and held.previous in self.rulesets:
                yield held.previous


def _union(sets: Iterable[Iterable[int]]) -> frozenset[int]:
    return frozenset(index for each in sets for index in each)


def _free(what: str, start: int, size: int, taken: Container[int]) -> int:
    """The next free index from start on; index 0 means none, so it is not given out."""
    for step in range(size):
        index = (start + step) % size
        if index and index not in taken:
            return index
    raise NotAppliedError(
        f"all {size - 1} {what} of this node are in use", "give workloads that do the same one profile"
    )
