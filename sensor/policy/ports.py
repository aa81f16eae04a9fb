# SPDX-License-Identifier: Apache-2.0
"""What this package needs of the kernel: the maps of profiles, as sensor/kernel/policy_maps.py has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from sensor.kernel.policy_state import (
        BreakGlass,
        GrantsValue,
        LearnedKey,
        LearnedValue,
        PolicyValue,
        ProgramKey,
        ResolverKey,
        RulesetValue,
    )
    from sensor.policy.layout import TrieKind
    from sensor.policy.rules import RuleSet

    # Compiles the rule sets of these contents again, one after the other.
    RuleSource = Callable[[Collection[bytes]], Iterator[RuleSet]]


class PolicyMaps(Protocol):
    """Typed access; every method may raise :class:`sensor.kernel.errors.KernelError`."""

    def set_policy_slot(self, slot: int, tag: int) -> None:
        """Switch a slot, in one write."""

    def set_settling(self, slot: int, until_ns: int) -> None:
        """Until when a workload that gets its first policy may reach what no name is known of yet."""

    def policy_slots(self) -> Iterator[tuple[int, int]]:
        """Slots that were ever set, with their tags."""

    def write_policy(self, index: int, value: PolicyValue | None) -> None:
        """Write a policy, or (None) empty its place."""

    def policies(self) -> Iterator[tuple[int, PolicyValue]]:
        """Those that are not empty."""

    def write_ruleset(self, index: int, value: RulesetValue) -> None:
        """Write a rule set's own entry; its tries are there already."""

    def rulesets(self) -> Iterator[tuple[int, RulesetValue]]:
        """Those that are not empty."""

    def load_trie(self, kind: TrieKind, index: int, items: Iterable[tuple[bytes, int]]) -> None:
        """Make a trie of a rule set; it is there after flush() at the latest."""

    def flush(self) -> None:
        """Every trie that was loaded is there."""

    def drop_rulesets(self, indices: Collection[int]) -> None:
        """Empty places and free their tries."""

    def set_program_id(self, path: bytes, program: int) -> None:
        """Give a path (layout.executable_key, layout.script_key) its id."""

    def program_ids(self) -> Iterator[tuple[bytes, int]]:
        """All paths with their ids."""

    def drop_program_id(self, path: bytes) -> bool:
        """Forget a path."""

    def identify_programs(self) -> None:
        """Give the processes that run already the ids of their executables and scripts."""

    def set_program_rule(self, key: ProgramKey, value: GrantsValue) -> None:
        """Write one program's grants under a policy."""

    def program_rules(self) -> Iterator[tuple[ProgramKey, GrantsValue]]:
        """All of them."""

    def drop_program_rule(self, key: ProgramKey) -> bool:
        """Forget one."""

    def learned(self) -> Iterator[tuple[LearnedKey, LearnedValue]]:
        """Every learned address."""

    def drop_learned(self, key: LearnedKey) -> bool:
        """Forget one."""


class NodeMaps(PolicyMaps, Protocol):
    """What a node's policies need besides."""

    def set_learned_times(self, floor_ns: int, grace_ns: int) -> None:
        """How long an answered address counts."""

    def set_expected_workload(self, cgroup_name: str, slot: int) -> None:
        """A cgroup of this name will have this slot."""

    def expected_workloads(self) -> Iterator[tuple[str, int]]:
        """All names that are waited for."""

    def drop_expected_workload(self, cgroup_name: str) -> bool:
        """Wait no longer."""

    def drop_learned_unless(self, key: LearnedKey, newer_than_ns: int) -> bool:
        """Forget an address that had expired by then; False when it has been learned again."""

    def learned_in_use(self) -> Iterator[tuple[int, int]]:
        """How many places each workload has."""

    def forget_learner(self, workload_cgroup_id: int) -> None:
        """A workload has no share any more."""

    def set_resolver(self, key: ResolverKey) -> None:
        """Believe a DNS server."""

    def resolvers(self) -> Iterator[ResolverKey]:
        """All that are believed."""

    def drop_resolver(self, key: ResolverKey) -> bool:
        """Believe it no longer."""

    def set_break_glass(self, entry: BreakGlass) -> None:
        """No profile cuts these flows."""

    def break_glass(self) -> Iterator[BreakGlass]:
        """All such flows."""

    def drop_break_glass(self, entry: BreakGlass) -> bool:
        """Profiles may cut them."""

    def learn_before(
        self, workload_cgroup_id: int, address: bytes, expires_ns: int, name: tuple[int, bytes]
    ) -> None:
        """Note an address a workload was answered with before it had a profile."""
