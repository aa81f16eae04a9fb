# SPDX-License-Identifier: Apache-2.0
"""Plans carried out: in what order, and what a restarted sensor makes of what is there."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from sensor.policy import layout
from sensor.policy.apply import PolicyTables
from sensor.policy.limits import QUARANTINE_NS
from sensor.policy.profile import compile_profile
from sensor.policy.reconcile import Reconciler
from sensor.policy.workloads import Profiles
from sensor.workload.table import Workload
from tests.support.fake_policy_maps import FakePolicyMaps
from tests.support.profiles import network, profile, rules, service

UID = "6f3c1d2e-0000-4000-8000-000000000001"
WALL = 1000
UNIT = "host/n1/nginx.service"
POD = Workload(UID, "POD", 7, f"/kubepods/pod{UID}", 7, UID)


@dataclass
class Sensor:
    """One run of a sensor on some maps."""

    maps: FakePolicyMaps
    profiles: Profiles
    tables: PolicyTables
    reconciler: Reconciler

    @classmethod
    def start(cls, maps: FakePolicyMaps) -> Sensor:
        profiles, tables = Profiles("n1", "deny"), PolicyTables(maps)
        return cls(maps, profiles, tables, Reconciler(maps, tables, profiles))

    def obey(self) -> None:
        """The same two profiles, in every run."""
        self.profiles.put(
            compile_profile(profile(default=network(rules("10.0.0.0/8", names=("a.example",)))))
        )
        host = profile("unit", namespace="host", scope="NODE", services=[service(unit="nginx.service")])
        self.profiles.put(compile_profile(host))
        self.profiles.select(UID, ["default/web"])


@pytest.fixture
def sensor() -> Sensor:
    return Sensor.start(FakePolicyMaps())


def test_a_name_leads_to_its_slot_only_when_its_policy_is_in_force(sensor: Sensor) -> None:
    sensor.obey()
    report = sensor.reconciler.reconcile([], WALL, 0)
    assert sensor.maps.expected[f"pod{UID}"] == report.slots[UID]
    assert sensor.maps.expected["nginx.service"] == report.slots[UNIT]
    switches = [at for at, step in enumerate(sensor.maps.log) if step == "set_policy_slot"]
    assert max(switches) < sensor.maps.log.index("set_expected_workload")


def test_repeating_it_writes_nothing(sensor: Sensor) -> None:
    sensor.obey()
    first = sensor.reconciler.reconcile([POD], WALL, 0)
    sensor.maps.log.clear()
    assert sensor.reconciler.reconcile([POD], WALL, 1).slots == first.slots
    assert sensor.maps.log == []


def test_a_pod_that_has_come_is_waited_for_no_longer_and_keeps_its_slot(sensor: Sensor) -> None:
    sensor.obey()
    before = sensor.reconciler.reconcile([], WALL, 0).slots[UID]
    assert sensor.reconciler.reconcile([POD], WALL, 1).slots[UID] == before
    assert list(sensor.maps.expected) == ["nginx.service"]


def test_a_restarted_sensor_finds_every_slot_again_and_builds_nothing(sensor: Sensor) -> None:
    sensor.obey()
    before = sensor.reconciler.reconcile([POD], WALL, 0)
    successor = Sensor.start(sensor.maps.after_a_crash())
    adopted = successor.reconciler.adopt("n1", [(POD, before.slots[POD.id])])
    assert adopted == len(successor.maps.slots)
    successor.obey()
    after = successor.reconciler.reconcile([POD], WALL, 0)
    assert after.slots == before.slots
    assert successor.maps.log == []


def test_what_nobody_wants_any_more_after_a_restart_is_removed(sensor: Sensor) -> None:
    sensor.obey()
    before = sensor.reconciler.reconcile([POD], WALL, 0)
    successor = Sensor.start(sensor.maps.after_a_crash())
    successor.reconciler.adopt("n1", [(POD, before.slots[POD.id])])
    for step in range(5):
        successor.reconciler.reconcile([], WALL, step * QUARANTINE_NS)
    assert successor.maps.expected == {}
    assert successor.maps.ruleset_array == {}
    # The pod is gone; what is not known has the node's mode.
    assert {slot for slot in successor.maps.slots if successor.maps.policy_of(slot)} == {1}


def test_a_workload_whose_policy_cannot_be_applied_is_told_and_the_others_have_theirs(sensor: Sensor) -> None:
    sensor.obey()
    for number in range(9):
        record = profile(f"p{number}", default=network(rules(f"10.{number}.0.0/16")))
        sensor.profiles.put(compile_profile(record))
    sensor.profiles.select(UID, [f"default/p{number}" for number in range(9)])
    report = sensor.reconciler.reconcile([POD], WALL, 0)
    assert list(report.failed) == [UID]
    assert sensor.tables.in_force(report.slots[UNIT])
    # It has had no policy yet, so it has that of a workload nobody knows; not none.
    given = sensor.maps.policy_of(report.slots[UID])
    assert given
    assert given.flags == layout.POLICY_UNKNOWN_WORKLOAD
    assert given.grants.mode == layout.MODE_ENFORCE


def test_a_profile_too_many_leaves_a_workload_the_policy_it_had(sensor: Sensor) -> None:
    sensor.obey()
    before = sensor.tables.in_force(sensor.reconciler.reconcile([POD], WALL, 0).slots[UID])
    for number in range(9):
        record = profile(f"p{number}", default=network(rules(f"10.{number}.0.0/16")))
        sensor.profiles.put(compile_profile(record))
    sensor.profiles.select(UID, [f"default/p{number}" for number in range(9)])
    report = sensor.reconciler.reconcile([POD], WALL, 1)
    assert list(report.failed) == [UID]
    assert sensor.tables.in_force(report.slots[UID]) == before


def test_a_kernel_that_refuses_is_told_for_each_workload(sensor: Sensor) -> None:
    sensor.obey()
    sensor.maps.break_after = 0
    report = sensor.reconciler.reconcile([], WALL, 0)
    assert report.failed.keys() == {UID, UNIT}
    assert sensor.reconciler.counters["expected_refused"] > 0
    sensor.maps.break_after = None
    assert sensor.reconciler.reconcile([], WALL, 1).failed == {}
    assert f"pod{UID}" in sensor.maps.expected
