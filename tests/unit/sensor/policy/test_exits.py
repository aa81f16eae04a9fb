# SPDX-License-Identifier: Apache-2.0
"""The sensor itself and the emergency exits, in the kernel's maps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sensor.kernel.policy_state import BreakGlass
from sensor.kernel.state import ProcessValue
from sensor.policy.exits import keep_open, spare_sensor
from sensor.policy.safety import parse_break_glass

if TYPE_CHECKING:
    from collections.abc import Iterator

_TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")


class Exits:
    """Both maps, and the kernel's table of processes."""

    def __init__(self) -> None:
        self.exempted: dict[int, int] = {}
        self.glass: set[BreakGlass] = set()
        self.known: dict[int, ProcessValue] = {}

    def process(self, tgid: int) -> ProcessValue | None:
        return self.known.get(tgid)

    def set_exempt(self, tgid: int, start_ns: int) -> None:
        self.exempted[tgid] = start_ns

    def exempt(self) -> Iterator[tuple[int, int]]:
        yield from self.exempted.items()

    def drop_exempt(self, tgid: int) -> bool:
        return self.exempted.pop(tgid, None) is not None

    def set_break_glass(self, entry: BreakGlass) -> None:
        self.glass.add(entry)

    def break_glass(self) -> Iterator[BreakGlass]:
        yield from self.glass

    def drop_break_glass(self, entry: BreakGlass) -> bool:
        self.glass.discard(entry)
        return True


def started(start_ns: int) -> ProcessValue:
    return ProcessValue(start_ns, 1, None, (), 1, 0)


def own_start_ns() -> int:
    """As near as /proc says it."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return ticks * _TICK_NS + _TICK_NS // 3


def test_this_process_is_spared_and_an_earlier_sensor_s_is_not_any_more() -> None:
    maps = Exits()
    maps.exempted = {1: 5, os.getpid(): 7}
    maps.known[os.getpid()] = started(own_start_ns())
    assert spare_sensor(maps, maps)
    assert maps.exempted == {os.getpid(): own_start_ns()}


def test_a_stranger_who_has_this_number_elsewhere_is_not_spared() -> None:
    maps = Exits()
    maps.known[os.getpid()] = started(own_start_ns() - 3 * _TICK_NS)
    assert not spare_sensor(maps, maps)
    assert maps.exempted == {}


def test_who_is_not_known_yet_is_spared_later() -> None:
    maps = Exits()
    assert not spare_sensor(maps, maps)
    maps.known[os.getpid()] = started(own_start_ns())
    assert spare_sensor(maps, maps)


def test_the_list_is_the_kernel_s_whatever_was_there_before() -> None:
    maps = Exits()
    keep_open(maps, parse_break_glass(["tcp:10.0.0.0/8:22 in"]))
    ways = {(entry.direction, entry.port, entry.prefix_bits) for entry in maps.glass}
    assert ways == {(1, 22, 104), (2, 22, 0)}, "the port may be bound, from whatever address"
    keep_open(maps, parse_break_glass(["udp:10.0.0.1/32:123 out"]))
    assert {(entry.direction, entry.port) for entry in maps.glass} == {(0, 123)}
    assert BreakGlass.unpack(next(iter(maps.glass)).pack()) in maps.glass
    keep_open(maps, ())
    assert maps.glass == set()
