# SPDX-License-Identifier: Apache-2.0
"""Cuts a workload off the network, or off single destinations, and frees it again.

The kernel looks into ``workload_quarantines`` and ``blocked_destinations`` only when a workload's flags
say that something is there. So values are written before the flags that switch them on, and removed after
the flags that switch them off: what was in force before an order stays in force until the new state is.

A workload may have several cgroups, and get new ones while an order is in force; each is a key of its
own. The state in the kernel is read back on each change, so an order written by an earlier sensor, or
half written, ends as it should. Failure: what the maps raise; every step may be repeated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sensor.kernel.state import (
    WORKLOAD_HAS_BLOCKS,
    WORKLOAD_HAS_QUARANTINE,
    DestinationKey,
    EnforcementValue,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from sensor.enforce.order import Destination
    from sensor.enforce.ports import Maps


class WorkloadCuts:
    """Writes the state of workloads; keeps none itself."""

    def __init__(self, maps: Maps) -> None:
        self._maps = maps

    def cut(
        self,
        cgroups: Collection[int],
        value: EnforcementValue,
        *,
        quarantined: bool,
        destinations: Collection[Destination],
    ) -> None:
        """Bring workload cgroups to the wanted state.

        Values of this generation that are in the kernel already stay as they are, with their counters.

        Args:
            cgroups: Workload cgroup ids.
            value: Generation and expiry.
            quarantined: Nothing may pass.
            destinations: What may not be reached.
        """
        wanted = {
            DestinationKey(cgroup, each.address, each.port, each.protocol)
            for cgroup in cgroups
            for each in destinations
        }
        if quarantined:
            for cgroup in cgroups:
                if not _same(self._maps.workload_quarantine(cgroup), value):
                    self._maps.set_workload_quarantine(cgroup, value)
        blocked = {
            key: old for key, old in self._maps.blocked_destinations() if key.workload_cgroup_id in cgroups
        }
        for key in wanted:
            if not _same(blocked.get(key), value):
                self._maps.block_destination(key, value)
        flags = (WORKLOAD_HAS_QUARANTINE if quarantined else 0) | (WORKLOAD_HAS_BLOCKS if wanted else 0)
        for cgroup in cgroups:
            self._maps.set_workload_flags(cgroup, flags)
        self._remove(() if quarantined else cgroups, blocked.keys() - wanted)

    def free(self, cgroups: Collection[int]) -> None:
        """End all enforcement of workload cgroups, whether or not this sensor began it."""
        for cgroup in cgroups:
            self._maps.set_workload_flags(cgroup, 0)
        blocked = [key for key, _ in self._maps.blocked_destinations() if key.workload_cgroup_id in cgroups]
        self._remove(cgroups, blocked)

    def _remove(self, unquarantined: Collection[int], blocked: Collection[DestinationKey]) -> None:
        for cgroup in unquarantined:
            self._maps.drop_workload_quarantine(cgroup)
        for key in blocked:
            self._maps.unblock_destination(key)


def _same(present: EnforcementValue | None, value: EnforcementValue) -> bool:
    return present is not None and present.generation == value.generation
