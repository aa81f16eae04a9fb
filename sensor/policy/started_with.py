# SPDX-License-Identifier: Apache-2.0
"""The resolvers each workload was started with, read once from its first process's view.

Input: the workloads' cgroups, /proc. Output: addresses by workload. A workload that has no process yet is
looked at again; one whose file names nobody, or may not be its runtime's, has only the node's resolvers.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sensor.policy.resolvers import workload_resolvers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sensor.enforce.clock import Clock
    from sensor.workload.table import Workload

_KINDS: Final = frozenset({"POD", "CONTAINER"})
_PROC: Final = Path("/proc")
_START_TICKS: Final = 19  # field of /proc/<pid>/stat after the name: process start in ticks
_NS: Final = 1_000_000_000
# A cgroup may hold thousands; the first process is among those that came first.
_MAX_PIDS: Final = 64


class StartedWith:
    """What was found; asked from the enforcement thread only.

    Args:
        cgroup_root: The mount of cgroup v2.
        clock: To tell wall clock from time since boot.
    """

    def __init__(self, cgroup_root: Path, clock: Clock) -> None:
        self._root = cgroup_root
        self._clock = clock
        self._found: dict[int, tuple[str, ...]] = {}
        self.waiting = False

    def resolvers(self, workloads: Iterable[Workload]) -> dict[int, tuple[str, ...]]:
        """Addresses by workload cgroup id; ``waiting`` is set when one has no process yet."""
        cgroups: dict[int, list[Workload]] = {}
        for each in workloads:
            if each.kind in _KINDS and each.workload_cgroup_id:
                cgroups.setdefault(each.workload_cgroup_id, []).append(each)
        self._found = {key: value for key, value in self._found.items() if key in cgroups}
        for key, parts in cgroups.items():
            if key not in self._found:
                first = min(self._processes(parts), default=None)
                if first is not None:
                    began_ns, pid = first
                    self._found[key] = workload_resolvers(pid, began_ns, _PROC)
        self.waiting = self._found.keys() != cgroups.keys()
        return dict(self._found)

    def _processes(self, cgroups: Iterable[Workload]) -> Iterator[tuple[int, int]]:
        """When each process began, wall clock, and its pid."""
        boot_ns = self._clock.wall_ns() - self._clock.boot_ns()
        tick_ns = _NS // os.sysconf("SC_CLK_TCK")
        for cgroup in cgroups:
            try:
                pids = (self._root / cgroup.cgroup_path.lstrip("/") / "cgroup.procs").read_text().split()
            except OSError:  # gone, or of another kind
                continue
            for pid in pids[:_MAX_PIDS]:
                try:
                    text = (_PROC / pid / "stat").read_text(errors="replace")
                    yield boot_ns + int(text.rpartition(")")[2].split()[_START_TICKS]) * tick_ns, int(pid)
                except (OSError, IndexError, ValueError):  # it has ended
                    continue
