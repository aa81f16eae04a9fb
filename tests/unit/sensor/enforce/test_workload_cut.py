# SPDX-License-Identifier: Apache-2.0
"""A workload's state is never half in force, whatever it was before."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.addresses import to_mapped
from sensor.enforce.apply import Applier
from sensor.enforce.order import AllowedFlow, Destination
from sensor.enforce.workload_cut import WorkloadCuts
from sensor.kernel.errors import KernelError
from sensor.kernel.state import (
    WORKLOAD_HAS_ALLOWED,
    WORKLOAD_HAS_BLOCKS,
    WORKLOAD_HAS_QUARANTINE,
    AllowedKey,
    DestinationKey,
    EnforcementValue,
)
from tests.support.fake_enforcement import FakeMaps, FakeWorkloads

BAD = Destination(to_mapped("203.0.113.9"), 80, 6)
WORSE = Destination(to_mapped("2001:db8::9"), 0, 0)


def value(generation: int) -> EnforcementValue:
    return EnforcementValue(generation=generation, expires_ns=1 << 60)


def key(cgroup: int, destination: Destination) -> DestinationKey:
    return DestinationKey(cgroup, destination.address, destination.port, destination.protocol)


def test_values_are_written_before_the_flags_that_switch_them_on() -> None:
    maps = FakeMaps()
    WorkloadCuts(maps).cut([7, 8], value(1), quarantined=True, destinations=[BAD])
    steps = [name for name, _ in maps.log]
    first_flags = steps.index("set_workload_flags")
    assert set(steps[:first_flags]) == {"set_workload_quarantine", "block_destination"}
    assert maps.flags == dict.fromkeys((7, 8), WORKLOAD_HAS_BLOCKS | WORKLOAD_HAS_QUARANTINE)
    assert maps.blocks.keys() == {key(7, BAD), key(8, BAD)}


DNS = AllowedFlow(to_mapped("10.96.0.10"), 128, 53, 17, incoming=False)
PROBE = AllowedFlow(to_mapped("10.0.0.0"), 104, 8080, 6, incoming=True)


def test_what_passes_is_there_before_the_quarantine_and_gone_after_it() -> None:
    maps = FakeMaps()
    cuts = WorkloadCuts(maps)
    cuts.cut([7, 8], value(3), quarantined=True, destinations=[], allowed=[DNS, PROBE])
    steps = [name for name, _ in maps.log]
    assert steps.index("set_workload_quarantine") > max(
        number for number, each in enumerate(steps) if each == "allow_flow"
    )
    assert maps.flags[7] == WORKLOAD_HAS_QUARANTINE | WORKLOAD_HAS_ALLOWED
    assert maps.allowed == {
        AllowedKey(cgroup, flow.protocol, int(flow.incoming), flow.port, flow.address, flow.prefix_bits): 3
        for cgroup in (7, 8)
        for flow in (DNS, PROBE)
    }
    cuts.cut([7], value(4), quarantined=True, destinations=[], allowed=[DNS])
    assert {(each.workload_cgroup_id, each.port): at for each, at in maps.allowed.items()} == {
        (7, 53): 4, (8, 53): 3, (8, 8080): 3,
    }  # fmt: skip
    cuts.cut([7], value(5), quarantined=True, destinations=[])
    assert maps.flags[7] == WORKLOAD_HAS_QUARANTINE
    cuts.free([8])
    assert maps.allowed == {}


def test_what_passed_the_quarantine_of_a_cgroup_that_is_gone_is_swept() -> None:
    maps = FakeMaps()
    WorkloadCuts(maps).cut([7, 8], value(1), quarantined=True, destinations=[], allowed=[DNS])
    maps.drop_workload_quarantine(8)
    Applier(maps, FakeWorkloads()).sweep([], 0)
    assert [each.workload_cgroup_id for each in maps.allowed] == [7]


def test_values_are_removed_after_the_flags_that_switch_them_off() -> None:
    maps = FakeMaps()
    cuts = WorkloadCuts(maps)
    cuts.cut([7], value(1), quarantined=True, destinations=[BAD])
    maps.log.clear()
    cuts.free([7])
    assert [name for name, _ in maps.log] == [
        "set_workload_flags",
        "drop_workload_quarantine",
        "unblock_destination",
    ]
    assert (maps.flags, maps.blocks, maps.cgroup_quarantines) == ({}, {}, {})


def test_a_new_order_replaces_all_of_the_old_one_and_of_no_other_workload() -> None:
    maps = FakeMaps()
    cuts = WorkloadCuts(maps)
    cuts.cut([9], value(1), quarantined=True, destinations=[BAD])
    cuts.cut([7], value(1), quarantined=True, destinations=[BAD])
    cuts.cut([7], value(2), quarantined=False, destinations=[WORSE])
    assert maps.flags == {7: WORKLOAD_HAS_BLOCKS, 9: WORKLOAD_HAS_BLOCKS | WORKLOAD_HAS_QUARANTINE}
    assert maps.blocks.keys() == {key(7, WORSE), key(9, BAD)}
    assert maps.cgroup_quarantines.keys() == {9}


def test_a_value_of_the_same_generation_keeps_its_counters() -> None:
    maps = FakeMaps()
    cuts = WorkloadCuts(maps)
    cuts.cut([7], value(1), quarantined=True, destinations=[BAD])
    maps.log.clear()
    cuts.cut([7], value(1), quarantined=True, destinations=[BAD])
    assert {name for name, _ in maps.log} == {"set_workload_flags"}


orders = st.tuples(st.booleans(), st.sets(st.sampled_from([BAD, WORSE])))


@settings(deadline=None)
@given(st.lists(orders, min_size=2, max_size=6), st.integers(0, 8))
def test_the_kernel_ends_as_the_last_order_says_even_if_one_was_broken_off(
    history: list[tuple[bool, set[Destination]]], steps: int
) -> None:
    maps = FakeMaps()
    for generation, (quarantined, destinations) in enumerate(history[:-1], 1):
        # The last of these is written by a sensor that is killed in the middle.
        maps.break_after = steps if generation == len(history) - 1 else None
        with suppress(KernelError):
            WorkloadCuts(maps).cut([7], value(generation), quarantined=quarantined, destinations=destinations)
    maps.break_after = None
    quarantined, destinations = history[-1]
    WorkloadCuts(maps).cut([7], value(99), quarantined=quarantined, destinations=destinations)
    assert maps.blocks.keys() == {key(7, each) for each in destinations}
    assert maps.cgroup_quarantines.keys() == ({7} if quarantined else set())
    wanted = (WORKLOAD_HAS_QUARANTINE if quarantined else 0) | (WORKLOAD_HAS_BLOCKS if destinations else 0)
    assert maps.flags.get(7, 0) == wanted
