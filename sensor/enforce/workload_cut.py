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
    WORKLOAD_HAS_ALLOWED,
    WORKLOAD_HAS_BLOCKS,
    WORKLOAD_HAS_QUARANTINE,
    AllowedKey,
    DestinationKey,
    EnforcementValue,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from sensor.enforce.order import AllowedFlow, Destination
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
        allowed: Collection[AllowedFlow] = (),
    ) -> None:
        """Bring workload cgroups to the wanted state.

        Values of this generation that are in the kernel already stay as they are, with their counters.

        Args:
            cgroups: Workload cgroup ids.
            value: Generation and expiry.
            quarantined: Nothing may pass.
            destinations: What may not be reached.
            allowed: What passes all the same, if quarantined.
        """
        wanted = {
            DestinationKey(cgroup, each.address, each.port, each.protocol)
            for cgroup in cgroups
            for each in destinations
        }
        # First of all: it counts for this generation, and the one in force stays allowed what it was.
        passing = {_allowed_key(cgroup, each) for cgroup in cgroups for each in allowed}
        for flow in passing:
            self._maps.allow_flow(flow, value.generation)
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
        flags |= WORKLOAD_HAS_ALLOWED if passing else 0
        for cgroup in cgroups:
            self._maps.set_workload_flags(cgroup, flags)
        self._remove(() if quarantined else cgroups, blocked.keys() - wanted)
        self._forbid(cgroups, passing)

    def free(self, cgroups: Collection[int]) -> None:
        """End all enforcement of workload cgroups, whether or not this sensor began it."""
        for cgroup in cgroups:
            self._maps.set_workload_flags(cgroup, 0)
        blocked = [key for key, _ in self._maps.blocked_destinations() if key.workload_cgroup_id in cgroups]
        self._remove(cgroups, blocked)
        self._forbid(cgroups, ())

    def _forbid(self, cgroups: Collection[int], but: Collection[AllowedKey]) -> None:
        """Forget what passed quarantines of these cgroups; the generation in it has voided it already."""
        for flow in list(self._maps.allowed_flows()):
            if flow.workload_cgroup_id in cgroups and flow not in but:
                self._maps.drop_allowed_flow(flow)

    def _remove(self, unquarantined: Collection[int], blocked: Collection[DestinationKey]) -> None:
        for cgroup in unquarantined:
            self._maps.drop_workload_quarantine(cgroup)
        for key in blocked:
            self._maps.unblock_destination(key)


def _allowed_key(cgroup: int, flow: AllowedFlow) -> AllowedKey:
    return AllowedKey(cgroup, flow.protocol, int(flow.incoming), flow.port, flow.address, flow.prefix_bits)


def _same(present: EnforcementValue | None, value: EnforcementValue) -> bool:
    return present is not None and present.generation == value.generation
