# SPDX-License-Identifier: Apache-2.0
"""Random profiles in force on both sides: in the kernel's maps, and as tries that are asked in Python."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from sensor.kernel import bpf_syscall as bpf
from sensor.kernel.policy_state import LearnedKey, LearnedValue
from sensor.kernel.state import U64
from sensor.policy import layout, names
from sensor.policy.apply import PolicyTables
from sensor.policy.decide import Flow, RuleTries, Verdict, decide
from sensor.policy.tables import POLICY_OF_TAG
from tests.support.kernel_watch import ARRIVAL_S
from tests.support.policies import RuleBook

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sensor.policy.policy import Policy
    from sensor.policy.profile import Program
    from tests.support.kernel_lab import Cgroup
    from tests.support.kernel_watch import Watch

_LONG_NS: Final = 1 << 62
_NAME_ID: Final = 77
_GLANCE_S: Final = 0.01


class DecisionLab:
    """One workload, and what both sides hold of its profiles.

    Args:
        watch: The kernel part.
        pod: The workload.
        slot: Its slot.
    """

    def __init__(self, watch: Watch, pod: Cgroup, slot: int) -> None:
        self.maps = watch.kernel.policy
        self._raw = watch.kernel._maps
        self._pod = pod
        self._slot = slot
        self._tables = PolicyTables(watch.kernel.policy)
        self._policy: Policy | None = None
        self._tries: dict[bytes, RuleTries] = {}
        watch.kernel.state.set_workload(pod.id, pod.id, slot)

    def govern(self, records: Sequence[dict[str, Any]]) -> None:
        """Put profiles in force."""
        book = RuleBook()
        self._policy = book.policy(*records)
        assert self._tables.apply({self._slot: self._policy}, book) == {}
        self._tables.collect(0)
        self._tries = {content: RuleTries(rules) for content, rules in book.known.items()}

    def said(self, flow: Flow, program: Program | None = None) -> Verdict:
        """The answer in Python."""
        return decide(self._policy, flow, self._tries, program)

    def learn(self, address: bytes, name: str) -> None:
        """As if a listed resolver had answered: under each rule set that lets the name be reached."""
        tag = dict(self.maps.policy_slots())[self._slot]
        key = names.exact_key(name)
        bpf.map_update(self._raw["learned_names"], U64.pack(_NAME_ID), layout.name_key(key))
        value = LearnedValue.layout.pack(_LONG_NS, _NAME_ID)
        for ruleset in dict(self.maps.policies())[tag & POLICY_OF_TAG].grants.rulesets:
            learned = LearnedKey(self._pod.id, ruleset, address)
            held = dict(self.maps.rulesets())[ruleset]
            if self._tries[held.content].name_value(key)[0] & layout.NAME_REACH:
                bpf.map_update(self._raw["learned"], learned.pack(), value)

    def forget(self) -> None:
        """Nothing was answered."""
        for key, _ in list(self.maps.learned()):
            if key.workload_cgroup_id == self._pod.id:
                self.maps.drop_learned(key)

    def refused(self) -> list[int]:
        """Refusals and alerts by reason, so far."""
        return list(self.maps.policy_counters(self._slot).by_reason)

    def counted_since(self, before: Sequence[int], wanted: int) -> dict[int, int]:
        """Refusals and alerts by reason since then; so many are waited for: packets may be on their way."""
        deadline = time.monotonic() + ARRIVAL_S
        while True:
            counted = [now - then for now, then in zip(self.refused(), before, strict=True)]
            if sum(counted) >= wanted or time.monotonic() > deadline:
                return {reason: count for reason, count in enumerate(counted) if count}
            time.sleep(_GLANCE_S)
