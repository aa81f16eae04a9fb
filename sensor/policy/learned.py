# SPDX-License-Identifier: Apache-2.0
"""Takes learned addresses out again that have expired: the kernel only adds.

Input: the kernel's map and the time. Output: free places, of the map and of each workload's share. Failure:
what the kernel refuses is tried again with the next sweep; until then addresses that have expired take up
places, and the kernel counts those it could not learn for want of one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sensor.kernel.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Collection

    from sensor.policy.ports import NodeMaps

# Half of the shortest time a place is worth waiting for; a sweep of a full map takes a tenth of a second.
SWEEP_NS: Final = 10_000_000_000
# What expired just now is likely to be answered again, which then costs the kernel less.
KEEP_NS: Final = 30_000_000_000


class LearnedSweep:
    """The sweeps of one node.

    Args:
        maps: The kernel's.

    ``counters``: addresses there were at the last sweep; the others since the start.
    """

    def __init__(self, maps: NodeMaps) -> None:
        self._maps = maps
        self._next_ns = 0
        self.counters = {
            "learned_addresses": 0,
            "learned_removed": 0,
            "learned_again_meanwhile": 0,
            "learned_sweeps_failed": 0,
        }

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
            self.counters["learned_sweeps_failed"] += 1

    def _sweep(self, expired_ns: int, workloads: Collection[int]) -> None:
        addresses = 0
        for key, value in list(self._maps.learned()):
            gone = key.workload_cgroup_id not in workloads and key.workload_cgroup_id != 0
            if value.expires_ns > expired_ns and not gone:
                addresses += 1
            elif self._maps.drop_learned_unless(key, value.expires_ns if gone else expired_ns):
                self.counters["learned_removed"] += 1
            else:
                addresses += 1
                self.counters["learned_again_meanwhile"] += 1
        self.counters["learned_addresses"] = addresses
        for workload, places in list(self._maps.learned_in_use()):
            if places == 0 and workload not in workloads and workload != 0:
                self._maps.forget_learner(workload)
