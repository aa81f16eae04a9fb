# SPDX-License-Identifier: Apache-2.0
"""The pinned maps as the rest of the sensor writes and reads them: quarantines, blocks, workloads, state.

Input: typed keys and values (state.py). Output: map entries the kernel programs obey at the next packet or
call. A refused write raises; nothing is retried here.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from sensor.kernel import bpf_syscall as bpf
from sensor.kernel.errors import KernelError
from sensor.kernel.inventory import run_iterator
from sensor.kernel.policy_state import WORKLOAD
from sensor.kernel.state import (
    U32,
    U64,
    AllowedKey,
    DestinationKey,
    EnforcementValue,
    ProcessKey,
    ProcessValue,
    SensorState,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_FIRST: Final = U32.pack(0)
# NSP_SETTING_ENFORCEMENTS of bpf/maps.h.
_ENFORCEMENTS: Final = U32.pack(4)
_NOT_QUARANTINED: Final = bytes(ProcessKey.layout.size)


class EnforcementMaps:
    """Typed access to the maps.

    An enforcement that is set again overwrites the kernel's refusal counters with those of the value
    given: whoever extends one reads it first.

    Args:
        maps: Descriptors by map name.
        mark_sockets: The iterator programs that stamp open sockets: survey, then stamp.
    """

    def __init__(self, maps: Mapping[str, int], mark_sockets: tuple[int, int]) -> None:
        self._maps = maps
        self._mark_sockets = mark_sockets
        # Orders and self-tests come from two threads; between a look and a write the other must not write.
        self._enforcing = threading.Lock()

    def set_quarantine(self, key: ProcessKey, value: EnforcementValue) -> None:
        """Cut a process and whoever carries it as quarantine root."""
        with self._enforcing:
            self._enforces(True)
            self._write("quarantines", key.pack(), value.pack())

    def drop_quarantine(self, key: ProcessKey) -> bool:
        """End a quarantine; False when there was none."""
        with self._enforcing:
            dropped = bpf.map_delete(self._maps["quarantines"], key.pack())
            self._enforces(self._something_is_enforced())
        return dropped

    def quarantine(self, key: ProcessKey) -> EnforcementValue | None:
        """One quarantine with the kernel's counters, or None."""
        return self._enforcement("quarantines", key.pack())

    def quarantines(self) -> Iterator[tuple[ProcessKey, EnforcementValue]]:
        """All process quarantines."""
        for key, value in self._items("quarantines"):
            yield ProcessKey.unpack(key), EnforcementValue.unpack(value)

    def process(self, tgid: int) -> ProcessValue | None:
        """What the kernel knows of a live process, or None."""
        value = bpf.map_lookup(self._maps["processes"], U32.pack(tgid), ProcessValue.layout.size)
        return None if value is None else ProcessValue.unpack(value)

    def processes(self) -> Iterator[tuple[int, ProcessValue]]:
        """All live processes the kernel knows, by tgid."""
        for key, value in self._items("processes"):
            yield U32.unpack(key)[0], ProcessValue.unpack(value)

    def parent_of_ended(self, key: ProcessKey) -> ProcessKey | None:
        """The parent of a process that has ended, or None when it lives or is forgotten."""
        value = bpf.map_lookup(self._maps["departed"], key.pack(), ProcessKey.layout.size)
        return None if value is None else ProcessKey.unpack(value)

    def mark_process(self, tgid: int, start_ns: int, root: ProcessKey | None) -> bool:
        """Put a live process under a quarantine root, or (None) out of it; False when it is gone.

        Children inherit the mark on fork, in the kernel; one forked while this runs may have missed it,
        so walk processes() again until no descendant is left to mark. An exec of the same process in
        this very moment may keep its earlier inode in the map until the next exec.
        """
        fd, key = self._maps["processes"], U32.pack(tgid)
        value = bpf.map_lookup(fd, key, ProcessValue.layout.size)
        if value is None or ProcessValue.unpack(value).start_ns != start_ns:
            return False
        at, size = ProcessValue.root_offset, ProcessKey.layout.size
        mark = _NOT_QUARANTINED if root is None else root.pack()
        if value[at : at + size] == mark:
            return True
        return bpf.map_update(fd, key, value[:at] + mark + value[at + size :], bpf.UpdateFlag.EXIST)

    def mark_sockets(self) -> int:
        """Stamp the open sockets that only quarantined processes hold; returns how many were new.

        Two walks: what anybody else holds, a service's listening socket for one, is noted first.
        """
        before = self._sockets_marked()
        for program in self._mark_sockets:
            run_iterator(program)
        return self._sockets_marked() - before

    def set_workload_quarantine(self, cgroup_id: int, value: EnforcementValue) -> None:
        """Cut a whole workload; its flags must say so too (set_workload_flags)."""
        self._write("workload_quarantines", U64.pack(cgroup_id), value.pack())

    def drop_workload_quarantine(self, cgroup_id: int) -> bool:
        """End a workload's quarantine; False when there was none."""
        return bpf.map_delete(self._maps["workload_quarantines"], U64.pack(cgroup_id))

    def workload_quarantine(self, cgroup_id: int) -> EnforcementValue | None:
        """One workload's quarantine with the kernel's counters, or None."""
        return self._enforcement("workload_quarantines", U64.pack(cgroup_id))

    def workload_quarantines(self) -> Iterator[tuple[int, EnforcementValue]]:
        """All workload quarantines, by workload cgroup id."""
        for key, value in self._items("workload_quarantines"):
            yield U64.unpack(key)[0], EnforcementValue.unpack(value)

    def block_destination(self, key: DestinationKey, value: EnforcementValue) -> None:
        """Refuse one destination to a workload; its flags must say so too (set_workload_flags)."""
        self._write("blocked_destinations", key.pack(), value.pack())

    def unblock_destination(self, key: DestinationKey) -> bool:
        """End a block; False when there was none."""
        return bpf.map_delete(self._maps["blocked_destinations"], key.pack())

    def blocked_destinations(self) -> Iterator[tuple[DestinationKey, EnforcementValue]]:
        """All blocks."""
        for key, value in self._items("blocked_destinations"):
            yield DestinationKey.unpack(key), EnforcementValue.unpack(value)

    def allow_flow(self, key: AllowedKey, generation: int) -> None:
        """Let a flow pass quarantines of its workload up to this generation (once the flags say so)."""
        self._write("quarantine_allowed", key.pack(), U64.pack(generation))

    def drop_allowed_flow(self, key: AllowedKey) -> bool:
        """End that; False when it was not there."""
        return bpf.map_delete(self._maps["quarantine_allowed"], key.pack())

    def allowed_flows(self) -> Iterator[AllowedKey]:
        """All of them."""
        fd = self._maps["quarantine_allowed"]
        for key in bpf.map_keys(fd, bpf.map_info(fd)):
            yield AllowedKey.unpack(key)

    def set_workload(self, cgroup_id: int, workload_cgroup_id: int, policy_slot: int | None = None) -> None:
        """Say which workload a cgroup belongs to, and its slot; cgroups made below it later inherit both.

        Without a slot it keeps the one it has: a new cgroup inherited what holds for unknown workloads,
        and to be called by its name is not yet to have a policy.
        """
        if policy_slot is None:
            policy_slot = self.policy_slot_of(cgroup_id)
        self._write("workloads", U64.pack(cgroup_id), WORKLOAD.pack(workload_cgroup_id, policy_slot))

    def policy_slot_of(self, cgroup_id: int) -> int:
        """The slot a cgroup has, 0 when it has none or is not known."""
        value = bpf.map_lookup(self._maps["workloads"], U64.pack(cgroup_id), WORKLOAD.size)
        return 0 if value is None else int(WORKLOAD.unpack(value)[1])

    def drop_workload(self, cgroup_id: int) -> bool:
        """Forget a cgroup; False when it was not known."""
        return bpf.map_delete(self._maps["workloads"], U64.pack(cgroup_id))

    def workloads(self) -> Iterator[tuple[int, int]]:
        """All known cgroups with their workload's cgroup."""
        for key, value in self._items("workloads"):
            yield U64.unpack(key)[0], WORKLOAD.unpack(value)[0]

    def set_workload_flags(self, cgroup_id: int, flags: int) -> None:
        """Say which enforcement tables the kernel must look into for a workload; 0 removes the entry."""
        with self._enforcing:
            if flags:
                self._enforces(True)
                self._write("workload_flags", U64.pack(cgroup_id), U32.pack(flags))
            else:
                bpf.map_delete(self._maps["workload_flags"], U64.pack(cgroup_id))
                self._enforces(self._something_is_enforced())

    def workload_flags(self, cgroup_id: int) -> int:
        """The flags of a workload; 0 when it has none."""
        value = bpf.map_lookup(self._maps["workload_flags"], U64.pack(cgroup_id), U32.size)
        return 0 if value is None else int(U32.unpack(value)[0])

    def sensor_state(self) -> SensorState:
        """What the last sensor had acknowledged; zeros when there was none."""
        value = bpf.map_lookup(self._maps["sensor_state"], _FIRST, SensorState.layout.size)
        if value is None:
            raise KernelError("map sensor_state has no entry 0")
        return SensorState.unpack(value)

    def set_sensor_state(self, batch_sequence: int, ring_position: int) -> None:
        """Note what the broker has acknowledged."""
        self._write("sensor_state", _FIRST, SensorState(batch_sequence, ring_position).pack())

    def _something_is_enforced(self) -> bool:
        return any(True for name in ("quarantines", "workload_flags") for _ in self._items(name))

    def _enforces(self, enforces: bool) -> None:
        """Tell the kernel whether there is anything to look for, before there is and after there was."""
        self._write("settings", _ENFORCEMENTS, U64.pack(enforces))

    def _sockets_marked(self) -> int:
        value = bpf.map_lookup(self._maps["settings"], _FIRST, U64.size)
        if value is None:
            raise KernelError("map settings has no entry 0")
        return int(U64.unpack(value)[0])

    def _write(self, name: str, key: bytes, value: bytes) -> None:
        bpf.map_update(self._maps[name], key, value)

    def _enforcement(self, name: str, key: bytes) -> EnforcementValue | None:
        value = bpf.map_lookup(self._maps[name], key, EnforcementValue.layout.size)
        return None if value is None else EnforcementValue.unpack(value)

    def _items(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        fd = self._maps[name]
        return bpf.map_items(fd, bpf.map_info(fd))
