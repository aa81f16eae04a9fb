# SPDX-License-Identifier: Apache-2.0
"""cgroups: told when they come, go and receive processes; a workload reaches new ones in the kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sensor.publish.layout import CGROUP_ATTACH, CGROUP_MKDIR, CGROUP_RMDIR, CONNECT
from tests.support.kernel_lab import Cgroup
from tests.support.kernel_watch import Actor, Seen, Watch


def path_of(seen: Seen) -> str:
    return seen.tail[: seen["path_bytes"]].decode()


def below_mount(watch: Watch, path: Path) -> str:
    return "/" + str(path.relative_to(watch.cgroup.path.parent))


def test_a_new_cgroup_is_told_with_path_parent_and_level(watch: Watch) -> None:
    path = watch.cgroup.path / "pod-é"
    path.mkdir()
    cgroup_id = path.stat().st_ino
    seen = watch.wait_for(CGROUP_MKDIR, where=lambda seen: seen["cgroup_id"] == cgroup_id)
    assert path_of(seen) == below_mount(watch, path)
    assert (seen["parent_cgroup_id"], seen["level"], seen["hierarchy_id"]) == (watch.cgroup.id, 2, 0)
    path.rmdir()
    gone = watch.wait_for(CGROUP_RMDIR, where=lambda seen: seen["cgroup_id"] == cgroup_id)
    assert path_of(gone) == below_mount(watch, path)


def test_a_moved_process_is_told_with_its_new_cgroup(watch: Watch) -> None:
    path = watch.cgroup.path / "target"
    path.mkdir()
    with Actor(watch.cgroup) as actor:
        (path / "cgroup.procs").write_text(str(actor.tgid))
        cgroup_id = path.stat().st_ino
        seen = watch.wait_for(
            CGROUP_ATTACH, tgid=actor.tgid, where=lambda seen: seen["cgroup_id"] == cgroup_id
        )
        assert seen["start_ns"] == watch.key(actor.tgid).start_ns
        assert path_of(seen) == below_mount(watch, path)
        port = actor.listen("server")
        actor.connect("client", "127.0.0.1", port)
        assert watch.wait_for(CONNECT, tgid=actor.tgid)["cgroup_id"] == cgroup_id


def test_a_child_cgroup_has_its_parent_s_workload_before_anybody_says_so(watch: Watch) -> None:
    state = watch.kernel.state
    pod = watch.cgroup.path / "pod"
    container = pod / "container"
    pod.mkdir()
    pod_id = pod.stat().st_ino
    state.set_workload(pod_id, pod_id)
    container.mkdir()
    container_id = container.stat().st_ino
    assert dict(state.workloads())[container_id] == pod_id
    container.rmdir()
    watch.wait_for(CGROUP_RMDIR, where=lambda seen: seen["cgroup_id"] == container_id)
    assert container_id not in dict(state.workloads())


def test_a_cgroup_outside_of_any_workload_has_none(watch: Watch) -> None:
    path = watch.cgroup.path / "plain"
    path.mkdir()
    assert path.stat().st_ino not in dict(watch.kernel.state.workloads())


def test_other_hierarchies_are_not_told(watch: Watch) -> None:
    hierarchies = [Path(line.split()[1]) for line in Path("/proc/mounts").read_text().splitlines()
                   if line.split()[2] == "cgroup"]  # fmt: skip
    if not hierarchies:
        pytest.skip("no cgroup v1 hierarchy is mounted here")
    name = f"nsp-test-v1-{os.getpid()}"
    (hierarchies[0] / name).mkdir()
    (hierarchies[0] / name).rmdir()
    marker = Cgroup(watch.cgroup.path / "after-v1")
    marker.path.mkdir()
    watch.wait_for(CGROUP_MKDIR, where=lambda seen: seen["cgroup_id"] == marker.id)
    assert [seen for seen in watch.events(CGROUP_MKDIR, CGROUP_RMDIR) if name in path_of(seen)] == []
