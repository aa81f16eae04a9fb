# SPDX-License-Identifier: Apache-2.0
"""Takes learned addresses out again that have expired: the kernel only adds.

Input: the kernel's map and the time. Output: free places, of the map and of each workload's share. Failure:
what the kernel refuses is tried again with the next sweep; until then addresses that have expired take up
places, and the kernel counts those it could not learn for want of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from sensor.kernel.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sensor.kernel.policy_state import LearnedKey, LearnedValue

# Half of the shortest time a place is worth waiting for; a sweep of a full map takes a tenth of a second.
SWEEP_NS: Final = 10_000_000_000
# What expired just now is likely to be answered again, which then costs the kernel less.
KEEP_NS: Final = 30_000_000_000


class LearnedMaps(Protocol):
    """What is asked of sensor/kernel/policy_maps.py."""

    def learned(self) -> Iterator[tuple[LearnedKey, LearnedValue]]:
        """Every learned address."""

    def drop_learned_unless(self, key: LearnedKey, newer_than_ns: int) -> bool:
        """Take one out, unless it has been learned again."""

    def learned_in_use(self) -> Iterator[tuple[int, int]]:
        """How many places each workload has."""

    def forget_learner(self, workload_cgroup_id: int) -> None:
        """A workload has no share any more."""


@dataclass(slots=True)
class LearnedCounters:
    """For the metrics: addresses there were at the last sweep; the others since start."""

    addresses: int = 0
    removed: int = 0
    kept_at_the_last_moment: int = 0
    failed_sweeps: int = 0


class LearnedSweep:
    """The sweeps of one node.

    Args:
        maps: The kernel's.
    """

    def __init__(self, maps: LearnedMaps) -> None:
        self._maps = maps
        self._next_ns = 0
        self.counters = LearnedCounters()

    def tick(self, now_ns: int, workloads: Collection[int]) -> None:
        """Sweep when it is time.

        Args:
            now_ns: CLOCK_BOOTTIME.
            workloads: Cgroup ids of the workloads there are; 0 is always there.
        """
        if now_ns < self._next_ns:
            return
        self._next_ns = now_ns + SWEEP_NS
        try:
            self._sweep(now_ns - KEEP_NS, workloads)
        except KernelError:
            self.counters.failed_sweeps += 1

    def _sweep(self, expired_ns: int, workloads: Collection[int]) -> None:
        addresses = 0
        for key, value in list(self._maps.learned()):
            gone = key.workload_cgroup_id not in workloads and key.workload_cgroup_id != 0
            if value.expires_ns > expired_ns and not gone:
                addresses += 1
            elif self._maps.drop_learned_unless(key, value.expires_ns if gone else expired_ns):
                self.counters.removed += 1
            else:
                addresses += 1
                self.counters.kept_at_the_last_moment += 1
        self.counters.addresses = addresses
        for workload, places in list(self._maps.learned_in_use()):
            if places == 0 and workload not in workloads and workload != 0:
                self._maps.forget_learner(workload)
