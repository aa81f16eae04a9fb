# SPDX-License-Identifier: Apache-2.0
"""Where the probe runs: a cgroup of its own, and the one connection that is refused there.

The cgroup lies directly below the one that the programs hang on and belongs to no workload, so that no
profile and no order reaches the probe, nor the block anybody else. Unlike the sensor the probe is not
spared by the kernel: what is refused to it is refused by the same path as to everybody. The block is in
force while a probe runs, and ends by its own expiry when the sensor is killed meanwhile. Failure: OSError,
or KernelError of the maps.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final, Protocol

from schemas.addresses import to_mapped
from schemas.self_test import ADDRESS, REFUSED_PORT
from sensor.kernel.state import WORKLOAD_HAS_BLOCKS, DestinationKey, EnforcementValue
from sensor.policy.limits import SLOT_SELF_TEST

if TYPE_CHECKING:
    from pathlib import Path

_TCP: Final = 6
# A process that was killed leaves its cgroup a moment after its parent has been told.
_EMPTY_WAIT_S: Final = 1.0
_EMPTY_RETRY_S: Final = 0.01


class Maps(Protocol):
    """The part of the kernel's state that this writes (sensor/kernel/maps.py)."""

    def set_workload(self, cgroup_id: int, workload_cgroup_id: int, policy_slot: int | None = None) -> None:
        """Say whose cgroup it is, and its slot."""

    def drop_workload(self, cgroup_id: int) -> object:
        """Forget a cgroup."""

    def block_destination(self, key: DestinationKey, value: EnforcementValue) -> None:
        """Refuse a destination to a workload."""

    def unblock_destination(self, key: DestinationKey) -> object:
        """End that."""

    def set_workload_flags(self, cgroup_id: int, flags: int) -> None:
        """Say what is looked for in a workload's calls."""


class Workloads(Protocol):
    """Who must know that the cgroup is the sensor's own (sensor/workload/table.py)."""

    def own(self, directory: Path) -> int:
        """The sensor's own cgroup, no workload; returns its id."""


class ProbePlace:
    """The probe's cgroup.

    Args:
        directory: Where it is to be.
        maps: The kernel's.
        workloads: The table of cgroups.
    """

    def __init__(self, directory: Path, maps: Maps, workloads: Workloads) -> None:
        self._directory = directory
        self._maps = maps
        self._workloads = workloads
        self._cgroup_id = 0

    @property
    def procs(self) -> str:
        """The file by which a process enters."""
        return str(self._directory / "cgroup.procs")

    def make(self) -> None:
        """Make the cgroup, or take the one that an earlier sensor left; nothing is refused in it."""
        self._directory.mkdir(exist_ok=True)
        self._cgroup_id = self._workloads.own(self._directory)
        self._maps.set_workload(self._cgroup_id, self._cgroup_id, SLOT_SELF_TEST)
        self.allow()

    def refuse(self, generation: int, for_s: float) -> None:
        """Have the one connection refused for so long at most."""
        self.make()
        expires_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(for_s * 1e9)
        self._maps.block_destination(self._key(), EnforcementValue(generation, expires_ns))
        self._maps.set_workload_flags(self._cgroup_id, WORKLOAD_HAS_BLOCKS)

    def allow(self) -> None:
        """End that."""
        self._maps.set_workload_flags(self._cgroup_id, 0)
        self._maps.unblock_destination(self._key())

    def remove(self) -> None:
        """Remove the cgroup; one that is still in use stays for the next sensor."""
        if not self._cgroup_id:
            return
        self.allow()
        self._maps.drop_workload(self._cgroup_id)
        until = time.monotonic() + _EMPTY_WAIT_S
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                self._directory.rmdir()
                return
            if not self._directory.exists():
                return
            time.sleep(_EMPTY_RETRY_S)

    def _key(self) -> DestinationKey:
        return DestinationKey(self._cgroup_id, to_mapped(ADDRESS), REFUSED_PORT, _TCP)
