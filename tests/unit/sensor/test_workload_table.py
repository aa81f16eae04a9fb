# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

from sensor.kernel.errors import KernelError
from sensor.workload import table as table_module
from sensor.workload.table import WorkloadTable
from tests.support.ring_records import FakeWorkloadMap

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

POD = "33545208-960a-4493-865c-11e6c10af644"
CONTAINER = "b" * 64


def pod_tree(table: WorkloadTable) -> None:
    for cgroup_id, path in (
        (1, "/"),
        (10, "/kubepods"),
        (11, "/kubepods/burstable"),
        (12, f"/kubepods/burstable/pod{POD}"),
        (13, f"/kubepods/burstable/pod{POD}/{CONTAINER}"),
    ):
        table.created(cgroup_id, path)


def test_a_pods_cgroups_are_told_to_the_kernel_as_the_pods() -> None:
    kernel = FakeWorkloadMap()
    table = WorkloadTable("n", kernel)
    pod_tree(table)
    assert kernel.entries == {12: 12, 13: 12}
    assert table.cgroups_of(POD) == (12,)
    assert table.get(13).container_id == CONTAINER


def test_a_removed_cgroup_is_still_named_and_no_longer_enforced_on() -> None:
    kernel = FakeWorkloadMap()
    table = WorkloadTable("n", kernel)
    pod_tree(table)
    table.removed(13)
    table.removed(12)
    assert kernel.entries == {}
    assert table.cgroups_of(POD) == ()
    assert table.get(13).pod_uid == POD


def test_a_workload_that_appears_is_announced_once() -> None:
    table = WorkloadTable("n", FakeWorkloadMap())
    pod_tree(table)
    before = table.changes
    pod_tree(table)
    assert table.changes == before
    table.created(20, "/system.slice/nginx.service")
    assert table.changes == before + 1


def test_an_unknown_cgroup_asks_for_another_walk() -> None:
    table = WorkloadTable("n", FakeWorkloadMap())
    assert table.get(77).id == "host/n/cgroup/77"
    assert table.incomplete
    assert table.counters["cgroup_unknown"] == 1


def test_the_walk_finds_inode_numbers_and_drops_what_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_module, "_mount_of", lambda directory: directory)
    unit = tmp_path / "system.slice" / "a.service"
    unit.mkdir(parents=True)
    kernel = FakeWorkloadMap()
    table = WorkloadTable("n", kernel)
    assert table.walk(tmp_path) == 3
    cgroup_id = unit.stat().st_ino
    assert table.cgroups_of("host/n/a.service") == (cgroup_id,)
    assert table.host.cgroup_id == tmp_path.stat().st_ino
    unit.rmdir()
    table.walk(tmp_path)
    assert table.cgroups_of("host/n/a.service") == ()


def test_a_kernel_that_refuses_an_entry_is_counted() -> None:
    class Full(FakeWorkloadMap):
        def set_workload(
            self, cgroup_id: int, workload_cgroup_id: int, policy_slot: int | None = None
        ) -> None:
            raise KernelError(f"the map is full: {cgroup_id} {workload_cgroup_id} {policy_slot}")

    table = WorkloadTable("n", Full())
    pod_tree(table)
    assert table.counters["kernel_refused"] == 2
    assert table.get(13).pod_uid == POD


def test_the_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_module, "MAX_CGROUPS", 3)
    table = WorkloadTable("n", FakeWorkloadMap())
    pod_tree(table)
    assert len(table) == 3
    assert table.counters["table_full"] == 2


def test_a_cgroup_has_the_slot_of_its_workload_now_and_when_it_appears(tmp_path: Path) -> None:
    kernel = FakeWorkloadMap()
    table = WorkloadTable("n", kernel)
    table.created(7, "/system.slice/a.service")
    assert kernel.slots == {}  # nobody has said anything: it keeps what it inherited
    table.place(lambda workload: 5 if workload.unit == "a.service" else None)
    table.created(8, "/system.slice/a.service/below")
    table.created(9, "/system.slice/b.service")
    assert kernel.slots == {7: 5, 8: 5}
    assert (7, 5) in [(workload.cgroup_id, slot) for workload, slot in table.slots_held()]


def test_what_may_become_a_pod_is_guarded_and_no_more() -> None:
    kernel = FakeWorkloadMap()
    table = WorkloadTable("n", kernel)
    for number, path in enumerate(
        ("/kubepods.slice", "/system.slice", "/kubepods.slice/kubepods-burstable.slice")
    ):
        table.created(number + 2, path)
    table.created(9, f"/kubepods.slice/kubepods-pod{'3f1e7a52_7d0c_4f6e_9a53_0c7de8a4b1f2'}.slice")
    assert table.guard(1) == 2
    assert kernel.slots == {2: 1, 4: 1}


def test_what_appears_below_a_guarded_path_later_is_guarded_too() -> None:
    kernel = FakeWorkloadMap()
    table = WorkloadTable("n", kernel)
    table.created(1, "/")
    assert table.guard(1) == 0
    table.created(10, "/kubepods.slice")
    table.created(11, "/kubepods.slice/kubepods-burstable.slice")
    table.created(20, "/system.slice")
    assert kernel.slots == {10: 1, 11: 1}
    assert kernel.entries == {10: 0, 11: 0}


def test_the_sensor_s_own_cgroup_is_nobody_s_workload(tmp_path: Path) -> None:
    """No profile, order or interface is about it, whether or not it was met before."""
    table = WorkloadTable("n", FakeWorkloadMap())
    table.created(1, "/")
    own, other = tmp_path / "nsp-selftest", tmp_path / "web.service"
    own.mkdir()
    other.mkdir()
    cgroup_id = own.stat().st_ino
    table.created(cgroup_id, "/nsp-selftest")
    assert [each.cgroup_id for each in table.governed()] == [cgroup_id]
    for _ in range(2):
        assert table.own(own) == cgroup_id
        table.created(cgroup_id, "/nsp-selftest")  # its event comes after
        assert table.get(cgroup_id).id == "host/n/nsp-selftest"
        assert table.governed() == []
        assert table.cgroups_of("host/n/nsp-selftest") == ()
    changes = table.changes
    table.own(own)
    table.created(other.stat().st_ino, "/web.service")
    assert table.changes == changes + 1
