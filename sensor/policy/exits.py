# SPDX-License-Identifier: Apache-2.0
"""What neither profile nor order cuts, in the kernel: the sensor itself, and the ways in for emergencies.

Input: this process, and the operator's list (safety.py). Output: the maps ``exempt`` and ``break_glass``,
with nothing in them that an earlier sensor was told and this one is not. Failure: KernelError. A process the
kernel does not know yet is not spared, and the caller says so again once the inventory has been taken.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from sensor.kernel.policy_state import BreakGlass
from sensor.policy import layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sensor.kernel.state import ProcessValue
    from sensor.policy.safety import BreakGlassEntry

_WAYS: Final = {"out": layout.BREAK_GLASS_OUT, "in": layout.BREAK_GLASS_IN}
_NO_ADDRESS: Final = bytes(16)
_START_TICKS: Final = 19  # field of /proc/<pid>/stat after the name
_NS: Final = 1_000_000_000


class ExemptMap(Protocol):
    """Whom nothing cuts (sensor/kernel/policy_maps.py)."""

    def set_exempt(self, tgid: int, start_ns: int) -> None:
        """Nothing cuts this process."""

    def exempt(self) -> Iterator[tuple[int, int]]:
        """Those of whom that is so."""

    def drop_exempt(self, tgid: int) -> bool:
        """It is like any other."""


class BreakGlassMap(Protocol):
    """What no profile cuts (sensor/kernel/policy_maps.py)."""

    def set_break_glass(self, entry: BreakGlass) -> None:
        """No profile cuts these flows."""

    def break_glass(self) -> Iterator[BreakGlass]:
        """Those of which that is so."""

    def drop_break_glass(self, entry: BreakGlass) -> bool:
        """Profiles may cut them."""


class Processes(Protocol):
    """The kernel's table of processes (sensor/kernel/state.py)."""

    def process(self, tgid: int) -> ProcessValue | None:
        """One of them."""


def spare_sensor(processes: Processes, maps: ExemptMap) -> bool:
    """Have nothing cut this process, and no earlier sensor's; False when the kernel does not know it yet.

    In a pid namespace of its own the sensor does not know its number, and who has that number in the kernel
    is somebody else: the time of its start tells.
    """
    tgid = os.getpid()
    known = processes.process(tgid)
    mine = known is not None and _is_started_at(known.start_ns)
    for earlier, start_ns in list(maps.exempt()):
        if not (mine and known and (earlier, start_ns) == (tgid, known.start_ns)):
            maps.drop_exempt(earlier)
    if mine and known:
        maps.set_exempt(tgid, known.start_ns)
    return mine


def _is_started_at(start_ns: int) -> bool:
    fields = Path("/proc/self/stat").read_text(errors="replace").rpartition(")")[2].split()
    return int(fields[_START_TICKS]) == start_ns * os.sysconf("SC_CLK_TCK") // _NS


def keep_open(maps: BreakGlassMap, entries: Iterable[BreakGlassEntry]) -> None:
    """Make the operator's list the kernel's: what is new first, then what is no more.

    Who is to be reached at a port must be able to bind it, also when it is started in an emergency.
    """
    wanted = set()
    for each in entries:
        wanted.add(BreakGlass(each.protocol, _WAYS[each.direction], each.port, each.address, each.bits))
        if each.direction == "in":
            wanted.add(BreakGlass(each.protocol, layout.BREAK_GLASS_BIND, each.port, _NO_ADDRESS, 0))
    for entry in wanted:
        maps.set_break_glass(entry)
    for entry in set(maps.break_glass()) - wanted:
        maps.drop_break_glass(entry)
