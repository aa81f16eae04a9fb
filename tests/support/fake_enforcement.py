# SPDX-License-Identifier: Apache-2.0
"""The kernel's enforcement in memory: what the maps hold and what the fork program does with it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sensor.enforce.profiles import ProfileOrders, ProfileResult
from sensor.enforce.signals import Facts
from sensor.kernel.errors import KernelError
from sensor.kernel.state import (
    ANCESTORS,
    AllowedKey,
    DestinationKey,
    EnforcementValue,
    ProcessKey,
    ProcessValue,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from sensor.enforce.clock import Clock
    from sensor.enforce.ports import Reports

Step = tuple[str, object]


class FakeMaps:
    """As sensor.kernel.maps.EnforcementMaps, for processes and workloads that exist in memory only.

    ``log`` is every write in order; ``on_scan`` runs at each process a scan yields, so that a test can
    fork or end processes in the middle of it; ``broken`` names methods that raise;
    ``break_after`` is how many more calls succeed.
    """

    def __init__(self) -> None:
        self.table: dict[int, ProcessValue] = {}
        self.process_quarantines: dict[ProcessKey, EnforcementValue] = {}
        self.cgroup_quarantines: dict[int, EnforcementValue] = {}
        self.blocks: dict[DestinationKey, EnforcementValue] = {}
        self.flags: dict[int, int] = {}
        self.allowed: dict[AllowedKey, int] = {}
        self.departed: dict[ProcessKey, ProcessKey] = {}
        self.log: list[Step] = []
        self.on_scan: Callable[[int], None] = lambda _: None
        self.broken: set[str] = set()
        self.break_after: int | None = None
        self.open_sockets = 0

    # What the kernel does by itself.

    def spawn(self, tgid: int, parent: int | None = None) -> ProcessKey:
        """Bear a process, as on_fork does."""
        key = ProcessKey(tgid=tgid, start_ns=1000 + tgid)
        ancestors: tuple[ProcessKey, ...] = ()
        root = None
        if parent is not None:
            above = self.table[parent]
            ancestors = (ProcessKey(parent, above.start_ns), *above.ancestors)[:ANCESTORS]
            root = above.quarantine_root
        self.table[tgid] = ProcessValue(key.start_ns, 0, root, ancestors, 0, 0)
        return key

    def exit(self, tgid: int) -> None:
        """End a process, as on_exit does."""
        ended = self.table.pop(tgid)
        if ended.ancestors:
            self.departed[ProcessKey(tgid, ended.start_ns)] = ended.ancestors[0]

    def is_cut(self, tgid: int, now_ns: int = 0) -> bool:
        """Whether the kernel refuses what a process sends."""
        root = self.table[tgid].quarantine_root
        value = self.process_quarantines.get(root) if root else None
        return value is not None and value.expires_ns > now_ns

    def cut_processes(self, now_ns: int = 0) -> set[int]:
        """Who is cut."""
        return {tgid for tgid in self.table if self.is_cut(tgid, now_ns)}

    def refuse(self, key: ProcessKey, at_ns: int) -> None:
        """Count a refused packet, as the packet program does."""
        old = self.process_quarantines[key]
        first = old.first_refused_ns or at_ns
        self.process_quarantines[key] = dataclasses.replace(
            old, first_refused_ns=first, refused_packets=old.refused_packets + 1
        )

    # What user space does.

    def set_quarantine(self, key: ProcessKey, value: EnforcementValue) -> None:
        self._write("set_quarantine", key)
        self.process_quarantines[key] = value

    def drop_quarantine(self, key: ProcessKey) -> bool:
        self._write("drop_quarantine", key)
        return self.process_quarantines.pop(key, None) is not None

    def quarantine(self, key: ProcessKey) -> EnforcementValue | None:
        return self.process_quarantines.get(key)

    def quarantines(self) -> Iterator[tuple[ProcessKey, EnforcementValue]]:
        yield from list(self.process_quarantines.items())

    def mark_process(self, tgid: int, start_ns: int, root: ProcessKey | None) -> bool:
        self._write("mark_process", (tgid, root))
        old = self.table.get(tgid)
        if old is None or old.start_ns != start_ns:
            return False
        self.table[tgid] = dataclasses.replace(old, quarantine_root=root)
        return True

    def process(self, tgid: int) -> ProcessValue | None:
        return self.table.get(tgid)

    def processes(self) -> Iterator[tuple[int, ProcessValue]]:
        self._write("processes", None)
        for tgid in list(self.table):
            self.on_scan(tgid)
            if tgid in self.table:
                yield tgid, self.table[tgid]

    def parent_of_ended(self, key: ProcessKey) -> ProcessKey | None:
        return self.departed.get(key)

    def mark_sockets(self) -> int:
        self._write("mark_sockets", None)
        stamped, self.open_sockets = self.open_sockets, 0
        return stamped

    def set_workload_quarantine(self, cgroup_id: int, value: EnforcementValue) -> None:
        self._write("set_workload_quarantine", cgroup_id)
        self.cgroup_quarantines[cgroup_id] = value

    def drop_workload_quarantine(self, cgroup_id: int) -> bool:
        self._write("drop_workload_quarantine", cgroup_id)
        return self.cgroup_quarantines.pop(cgroup_id, None) is not None

    def workload_quarantine(self, cgroup_id: int) -> EnforcementValue | None:
        return self.cgroup_quarantines.get(cgroup_id)

    def workload_quarantines(self) -> Iterator[tuple[int, EnforcementValue]]:
        yield from list(self.cgroup_quarantines.items())

    def block_destination(self, key: DestinationKey, value: EnforcementValue) -> None:
        self._write("block_destination", key)
        self.blocks[key] = value

    def unblock_destination(self, key: DestinationKey) -> bool:
        self._write("unblock_destination", key)
        return self.blocks.pop(key, None) is not None

    def blocked_destinations(self) -> Iterator[tuple[DestinationKey, EnforcementValue]]:
        yield from list(self.blocks.items())

    def allow_flow(self, key: AllowedKey, generation: int) -> None:
        self._write("allow_flow", key)
        self.allowed[key] = generation

    def drop_allowed_flow(self, key: AllowedKey) -> bool:
        self._write("drop_allowed_flow", key)
        return self.allowed.pop(key, None) is not None

    def allowed_flows(self) -> Iterator[AllowedKey]:
        yield from list(self.allowed)

    def set_workload_flags(self, cgroup_id: int, flags: int) -> None:
        self._write("set_workload_flags", (cgroup_id, flags))
        if flags:
            self.flags[cgroup_id] = flags
        else:
            self.flags.pop(cgroup_id, None)

    def _write(self, name: str, about: object) -> None:
        if name in self.broken or self.break_after == 0:
            raise KernelError(f"{name} refused")
        if self.break_after is not None:
            self.break_after -= 1
        self.log.append((name, about))


class FakeWorkloads:
    """Workload ids with their cgroups."""

    def __init__(self, **cgroups: tuple[int, ...]) -> None:
        self.cgroups = dict(cgroups)

    def cgroups_of(self, workload_id: str) -> tuple[int, ...]:
        return self.cgroups.get(workload_id, ())


@dataclass
class FakeSignals:
    """Processes by tgid, as /proc has them; ending one takes it out of the maps too, unless it is stuck.

    ``on_kill`` runs before each signal, so that a test can change the process in the last moment.
    """

    maps: FakeMaps
    by_tgid: dict[int, Facts] = field(default_factory=dict)
    sent: list[int] = field(default_factory=list)
    stuck: set[int] = field(default_factory=set)
    denied: set[int] = field(default_factory=set)
    on_kill: Callable[[int], None] = lambda _: None

    def set(self, tgid: int, executable: str = "/bin/sh", cgroup: str = "/", **fields: Any) -> None:
        """Say what a process is."""
        plain = {"parent": 1, "start_ticks": (1000 + tgid) // 10_000_000, "kernel_thread": False, **fields}
        self.by_tgid[tgid] = Facts(tgid, executable=executable, cgroup=cgroup, **plain)

    def facts(self, tgid: int) -> Facts | None:
        if tgid not in self.by_tgid and tgid in self.maps.table:
            self.set(tgid)
        return self.by_tgid.get(tgid)

    def kill(self, tgid: int, is_it: Callable[[], bool]) -> bool:
        self.on_kill(tgid)
        if not is_it():
            return False
        if tgid in self.denied:
            raise PermissionError(1, "Operation not permitted")
        self.sent.append(tgid)
        if tgid not in self.stuck:
            self.by_tgid.pop(tgid, None)
            self.maps.exit(tgid)
        return True


@dataclass
class ManualClock:
    """Both clocks, moved by the test."""

    wall: int = 1_790_000_000_000_000_000
    boot: int = 5_000_000_000_000

    def wall_ns(self) -> int:
        return self.wall

    def boot_ns(self) -> int:
        return self.boot

    def pass_ms(self, milliseconds: int) -> None:
        self.wall += milliseconds * 1_000_000
        self.boot += milliseconds * 1_000_000


@dataclass
class Recorder:
    """Statuses and notices, as they were sent."""

    statuses: list[dict[str, Any]] = field(default_factory=list)
    notices: list[tuple[str, str, str]] = field(default_factory=list)

    def send(self, record: Any) -> None:
        self.statuses.append(dict(record))

    def notice(self, kind: str, subject: str, detail: str) -> None:
        self.notices.append((kind, subject, detail))

    def outcomes(self) -> list[str]:
        return [each["outcome"] for each in self.statuses]


class NoProfiles:
    """A profile sink that has nothing to do."""

    def put(self, record: Mapping[str, Any], workloads: Collection[str]) -> str:
        """Refuse: no test of these gives it one."""
        raise AssertionError(f"no profile is expected here: {record['name']} for {len(workloads)} workloads")

    def drop(self, key: str) -> None:
        """Nothing is there."""

    def known(self, workloads: Collection[str]) -> None:
        """Nobody asks."""

    def apply(self) -> Mapping[str, ProfileResult]:
        """Nothing is wanted."""
        return {}

    def tick(self) -> bool:
        """Nothing changes."""
        return False


def no_profiles(reports: Reports, clock: Clock) -> ProfileOrders:
    """Profile orders of a node that gets none."""
    return ProfileOrders(NoProfiles(), reports, {}, clock, {})
