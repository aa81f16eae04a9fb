# SPDX-License-Identifier: Apache-2.0
"""The kernel side as the rest of the sensor sees it: start or adopt, read the ring, write the maps.

A Kernel holds descriptors and the pin directory's lock, nothing else: closing it, or dying, leaves the
programs running and enforcement in force. Only unload ends it.
"""

from __future__ import annotations

import contextlib
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from sensor.kernel import bpf_syscall as bpf
from sensor.kernel.errors import KernelError
from sensor.kernel.interfaces import detach_all
from sensor.kernel.inventory import run_in_parts
from sensor.kernel.launch import Loaded, LoadRequest, run_loader
from sensor.kernel.maps import EnforcementMaps
from sensor.kernel.mounts import BPFFS, cgroup2_mount, ensure_bpffs
from sensor.kernel.namespaces import host_namespace
from sensor.kernel.pins import lock, remove_all
from sensor.kernel.policy_maps import PolicyMaps
from sensor.kernel.ring import EventRing, validate_ring_bytes
from sensor.kernel.state import COUNTERS, U32, U64

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

DEFAULT_PIN_DIRECTORY: Final = BPFFS / "nsp"
# Touched pages count as the sensor's memory, and 45 MB are its budget: half a minute of a thousand events a
# second while no broker answers, or a fifth of a second of a flood. Busy nodes give more (--ring-bytes).
DEFAULT_RING_BYTES: Final = 4 << 20
# The longest that an inventory reports: a process with path and argv of 1 KB each (bpf/events.h), which makes
# 2,240 bytes on the ring, and some room.
_INVENTORY_EVENT_BYTES: Final = 2304


# Only root writes there; what is in it runs in the kernel.
DEFAULT_CACHE_DIRECTORY: Final = Path("/var/cache/nsp")


@dataclass(frozen=True, slots=True)
class KernelOptions:
    """What a load can be told. Sizes hold until unload: adopted maps keep theirs.

    Args:
        pin_directory: On bpffs; one sensor at a time works with it.
        cgroup_root: Programs see what is below this cgroup v2 directory; None is the whole node.
        ring_bytes: Size of the event ring, a power of two.
        max_processes: Entries of the process table.
        max_quarantines: Processes, and workloads, under quarantine at a time.
        max_workloads: cgroups of workloads.
        max_blocked_destinations: Blocks at a time, of all workloads.
        source_directory: The C to compile; None is the sensor's own.
        cache_directory: Where compiled programs are kept for the next start; None keeps none.
    """

    pin_directory: Path = DEFAULT_PIN_DIRECTORY
    cgroup_root: Path | None = None
    ring_bytes: int = DEFAULT_RING_BYTES
    max_processes: int = 65536
    max_quarantines: int = 1024
    max_workloads: int = 16384
    max_blocked_destinations: int = 16384
    source_directory: Path | None = None
    cache_directory: Path | None = DEFAULT_CACHE_DIRECTORY

    def __post_init__(self) -> None:
        validate_ring_bytes(self.ring_bytes)

    def _sizes(self) -> dict[str, int]:
        return {
            "NSP_RING_PAGES": self.ring_bytes // os.sysconf("SC_PAGE_SIZE"),
            "NSP_MAX_PROCESSES": self.max_processes,
            "NSP_MAX_QUARANTINES": self.max_quarantines,
            "NSP_MAX_WORKLOADS": self.max_workloads,
            "NSP_MAX_BLOCKED_DESTINATIONS": self.max_blocked_destinations,
        }

    def request(self) -> LoadRequest:
        """What the loader child is told."""
        return LoadRequest(
            pin_directory=str(self.pin_directory),
            cgroup_root=str(self.cgroup_root or cgroup2_mount()),
            source_directory=None if self.source_directory is None else str(self.source_directory),
            cache_directory=None if self.cache_directory is None else str(self.cache_directory),
            sizes=self._sizes(),
        )


class Kernel:
    """The running programs and their maps. Made by start()."""

    def __init__(self, loaded: Loaded, lock_fd: int, cgroup_root: Path) -> None:
        self.adopted = loaded.adopted
        self.cgroup_root = cgroup_root
        self._lock_fd = lock_fd
        self._maps = loaded.maps
        self._iterators = loaded.iterators
        self._cpus = bpf.possible_cpus()
        events = loaded.maps["events"]
        self.ring = EventRing(events, bpf.map_info(events).max_entries)
        self.state = EnforcementMaps(
            loaded.maps, (loaded.iterators["survey_sockets"], loaded.iterators["mark_sockets"])
        )
        self.policy = PolicyMaps(loaded.maps, loaded.iterators["identify_programs"])
        self.policy.set_node_network(host_namespace().stat().st_ino)

    @classmethod
    def start(cls, options: KernelOptions | None = None) -> Kernel:
        """Load the programs, or adopt what is pinned and swap its programs without a gap.

        Takes some seconds: the compiler's four, unless what it made is kept, and the verifier's. When it
        fails, a fresh load has left nothing behind and what was pinned before goes on.

        Raises:
            PinsInUse: Another sensor works with this pin directory.
            PinsIncompatible: What is pinned has another layout or hangs on another cgroup.
            KernelError: Anything else, with its cure.
        """
        options = options or KernelOptions()
        request = options.request()
        ensure_bpffs(options.pin_directory)
        lock_fd = lock(options.pin_directory)
        try:
            return cls(run_loader(request, lock_fd), lock_fd, Path(request.cgroup_root))
        except BaseException:
            with contextlib.suppress(OSError):
                options.pin_directory.rmdir()  # only if nothing is in it
            os.close(lock_fd)
            raise

    @staticmethod
    def unload(pin_directory: Path = DEFAULT_PIN_DIRECTORY) -> None:
        """End all enforcement: detach every program, remove every pin.

        Raises:
            PinsInUse: A sensor is running; stop it first.
        """
        if not pin_directory.is_dir():
            return
        lock_fd = lock(pin_directory)
        try:
            detach_all(pin_directory)
            remove_all(pin_directory)
        finally:
            os.close(lock_fd)

    def run_inventory(self) -> None:
        """Report all of what was there before, into a ring that holds it; see inventory()."""
        for _ in self.inventory():
            pass

    def inventory(self) -> Iterator[None]:
        """Report what was there before: every process, and the owner of every open socket.

        The events come through the ring, flagged as inventory, in parts of a quarter of the ring at most:
        make room between them.
        """
        events = max(1, self.ring.size_bytes // 4 // _INVENTORY_EVENT_BYTES)
        yield from run_in_parts(self._iterators["inventory_tasks"], events)
        yield from run_in_parts(self._iterators["inventory_sockets"], events)

    def counters(self) -> Mapping[str, int]:
        """The kernel's loss and limit counters since load, summed over CPUs, by name."""
        return {name: sum(self._per_cpu("counters", index)) for index, name in enumerate(COUNTERS)}

    def sequences(self) -> list[int]:
        """Events attempted since load, per possible CPU: the next event of CPU n has number [n]."""
        return list(self._per_cpu("sequence", 0))

    def _per_cpu(self, name: str, index: int) -> tuple[int, ...]:
        value = bpf.map_lookup(self._maps[name], U32.pack(index), U64.size * self._cpus)
        if value is None:
            raise KernelError(f"map {name} has no entry {index}")
        return struct.unpack(f"<{self._cpus}Q", value)

    def close(self) -> None:
        """Let go of the descriptors and the lock; programs, maps and enforcement stay."""
        self.ring.close()
        self.policy.close()
        for descriptor in (*self._maps.values(), *self._iterators.values()):
            os.close(descriptor)
        os.close(self._lock_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
