# SPDX-License-Identifier: Apache-2.0
"""Brings the kernel to the plan: policies first, then the names of cgroups that wait for them.

Input: the profiles (workloads.py) and the workloads that are there. Output: the kernel's maps, and a
:class:`Report` of what each workload has. A cgroup is given its slot by the caller after this, so no slot is
ever entered before its policy is complete. Failure: told for each workload; what it had stays.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from sensor.kernel.errors import KernelError
from sensor.policy.limits import MAX_EXPECTED_WORKLOADS
from sensor.workload.paths import identify

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from sensor.policy.apply import PolicyTables
    from sensor.policy.errors import PolicyRefused
    from sensor.policy.workloads import Governed, Profiles

_SOME_SLICE: Final = "/kubepods"
# What a running workload resolved before its first profile is found in the events of the last batches, which
# are some hundred milliseconds behind; and who has just been answered connects within one.
SETTLING_NS: Final = 500_000_000


class ExpectedMap(Protocol):
    """The names the kernel waits for (sensor/kernel/policy_maps.py)."""

    def set_expected_workload(self, cgroup_name: str, slot: int) -> None:
        """Wait for one."""

    def expected_workloads(self) -> Iterator[tuple[str, int]]:
        """All of them."""

    def drop_expected_workload(self, cgroup_name: str) -> bool:
        """Wait no longer."""


@dataclass(slots=True)
class Report:
    """What came of it.

    Attributes:
        slots: By subject; a cgroup of it is to have this slot.
        failed: By subject, why it does not have the policy it should; it keeps what it had.
    """

    slots: dict[str, int] = field(default_factory=dict)
    failed: dict[str, PolicyRefused] = field(default_factory=dict)


class Reconciler:
    """The one who carries out plans.

    ``counters`` is read by the metrics.
    """

    def __init__(self, expected: ExpectedMap, tables: PolicyTables, profiles: Profiles) -> None:
        self._map = expected
        self._tables = tables
        self._profiles = profiles
        self._expected: dict[str, int] = {}
        self.counters = {"expected_refused": 0, "expected_full": 0, "fallback_failed": 0}

    def adopt(self, node: str, held: Iterable[tuple[Governed, int]]) -> int:
        """Take over what an earlier sensor left: policies, and who has which slot; how many policies.

        Args:
            node: Name of this node, as in workload ids.
            held: The cgroups of workloads, with the slot the kernel has for each.

        Raises:
            NotAppliedError: The maps could not be read.
        """
        count = self._tables.adopt()
        self._expected = dict(self._map.expected_workloads())
        slots = {_waiting(name, node): slot for name, slot in self._expected.items()}
        slots |= {self._profiles.subject_of(each): slot for each, slot in held}
        self._profiles.slots.adopt(slots, self._tables.slots())
        self._wait_for(self._profiles.waits_for())
        return count

    def reconcile(
        self, workloads: Collection[Governed], wall_ns: int, boot_ns: int, kept: Collection[int] = ()
    ) -> Report:
        """Make what is wanted what is; repeating it when nothing has changed writes nothing.

        Args:
            workloads: Those that are there.
            wall_ns: Wall time, for profiles that expire.
            boot_ns: Boot time, for slots that rest.
            kept: Slots whose policy stays as it is.
        """
        plan = self._profiles.plan(workloads, wall_ns, boot_ns)
        for slot in kept:
            plan.policies.pop(slot, None)
        # A name must not lead to a slot that is about to be another's.
        self._forget(plan.expected)
        there = {plan.slots.get(self._profiles.subject_of(each), -1) for each in workloads}
        settling = there, boot_ns + SETTLING_NS
        failed = self._tables.apply(plan.policies, self._profiles.rule_sets, settling)
        report = Report(plan.slots, dict(plan.refused))
        for subject, slot in plan.slots.items():
            if slot in failed:
                report.failed[subject] = failed[slot]
        self._fall_back(report)
        self._wait_for(plan.expected)
        self._tables.collect(boot_ns)
        return report

    def _fall_back(self, report: Report) -> None:
        """A pod that has no policy in force, and cannot have its own, is as good as unknown."""
        slots = {report.slots[subject]: self._profiles.fallback(subject) for subject in report.failed}
        without = {
            slot: policy for slot, policy in slots.items() if policy and self._tables.in_force(slot) is None
        }
        if without:
            self.counters["fallback_failed"] += len(self._tables.apply(without, self._profiles.rule_sets))

    def _forget(self, wanted: dict[str, int]) -> None:
        for name in [name for name, slot in self._expected.items() if wanted.get(name) != slot]:
            try:
                self._map.drop_expected_workload(name)
            except KernelError:
                self.counters["expected_refused"] += 1
            else:
                del self._expected[name]

    def _wait_for(self, wanted: dict[str, int]) -> None:
        for name, slot in wanted.items():
            if self._expected.get(name) == slot:
                continue
            if len(self._expected) >= MAX_EXPECTED_WORKLOADS:
                self.counters["expected_full"] += 1
                continue
            try:
                self._map.set_expected_workload(name, slot)
            except KernelError:
                # Its cgroup gets its slot when it is seen, a moment after its birth.
                self.counters["expected_refused"] += 1
            else:
                self._expected[name] = slot


def _waiting(name: str, node: str) -> str:
    """The workload a cgroup of this name will be."""
    return identify(f"{_SOME_SLICE}/{name}").pod_uid or f"host/{node}/{name}"
