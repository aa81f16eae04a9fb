# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from sensor.workload.paths import identify, workload_id

UID = "33545208-960a-4493-865c-11e6c10af644"
UID_ = UID.replace("-", "_")
CID = "b62f00f74ae2" + "0" * 52
CID2 = "6e44ead49550" + "1" * 52
KIND_SYSTEMD = (
    f"/system.slice/docker-{CID2}.scope/kubelet.slice/kubelet-kubepods.slice/"
    f"kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{UID_}.slice"
)


@pytest.mark.parametrize(
    ("path", "root"),
    [
        # kubelet with the cgroupfs driver; guaranteed pods have no QoS level
        (f"/kubepods/burstable/pod{UID}/{CID}", f"/kubepods/burstable/pod{UID}"),
        (f"/kubepods/pod{UID}/{CID}", f"/kubepods/pod{UID}"),
        (f"/node2/kubepods/besteffort/pod{UID}/{CID}", f"/node2/kubepods/besteffort/pod{UID}"),
        # the systemd driver with containerd, CRI-O and Docker (cri-dockerd)
        (
            f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/cri-containerd-{CID}.scope",
            f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice",
        ),
        (
            f"/kubepods.slice/kubepods-pod{UID_}.slice/crio-{CID}.scope",
            f"/kubepods.slice/kubepods-pod{UID_}.slice",
        ),
        (
            f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice/docker-{CID}.scope",
            f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice",
        ),
        # CRI-O with the cgroupfs driver
        (f"/kubepods/burstable/pod{UID}/crio-{CID}", f"/kubepods/burstable/pod{UID}"),
        # kind: a kubelet inside of a Docker container, both drivers
        (
            f"/docker/{CID2}/kubelet/kubepods/burstable/pod{UID}/{CID}",
            f"/docker/{CID2}/kubelet/kubepods/burstable/pod{UID}",
        ),
        (
            f"{KIND_SYSTEMD}/cri-containerd-{CID}.scope",
            KIND_SYSTEMD,
        ),
        # a container's own cgroups (systemd or a nested runtime inside of the pod)
        (f"/kubepods/burstable/pod{UID}/{CID}/init.scope", f"/kubepods/burstable/pod{UID}"),
        (f"/kubepods/burstable/pod{UID}/{CID}/docker/{CID2}", f"/kubepods/burstable/pod{UID}"),
    ],
)
def test_a_pod_is_known_by_uid_container_and_its_own_cgroup(path: str, root: str) -> None:
    found = identify(path)
    assert (found.kind, found.pod_uid, found.container_id, found.root) == ("POD", UID, CID, root)
    assert workload_id(found, "node1") == UID


def test_the_pods_own_cgroup_is_the_pod_without_a_container() -> None:
    found = identify(f"/kubepods/burstable/pod{UID}")
    assert (found.kind, found.pod_uid, found.container_id) == ("POD", UID, None)


def test_a_static_pods_hash_is_its_uid() -> None:
    digest = "0123456789abcdef" * 2
    assert identify(f"/kubepods/burstable/pod{digest}/{CID}").pod_uid == digest


def test_the_monitor_of_a_crio_container_is_not_the_container() -> None:
    found = identify(f"/kubepods.slice/kubepods-pod{UID_}.slice/crio-conmon-{CID}.scope")
    assert (found.kind, found.container_id) == ("POD", None)


@pytest.mark.parametrize(
    "path",
    [
        f"/docker/{CID}",
        f"/system.slice/docker-{CID}.scope",
        f"/machine.slice/libpod-{CID}.scope",
        f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{CID}.scope",
    ],
)
def test_a_container_outside_of_kubernetes_is_named_by_its_cgroup(path: str) -> None:
    found = identify(f"{path}/system.slice/cron.service")
    assert (found.kind, found.container_id, found.root, found.unit) == ("CONTAINER", CID, path, None)
    assert workload_id(found, "n") == f"host/n{path}"


@pytest.mark.parametrize(
    ("path", "unit", "root", "name"),
    [
        (
            "/system.slice/nginx.service",
            "nginx.service",
            "/system.slice/nginx.service",
            "host/n/nginx.service",
        ),
        (
            "/system.slice/nginx.service/workers",
            "nginx.service",
            "/system.slice/nginx.service",
            "host/n/nginx.service",
        ),
        (
            "/system.slice/system-getty.slice/getty@tty1.service",
            "getty@tty1.service",
            "/system.slice/system-getty.slice/getty@tty1.service",
            "host/n/getty@tty1.service",
        ),
        ("/init.scope", "init.scope", "/init.scope", "host/n/init.scope"),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/web.service",
            "web.service",
            "/user.slice/user-1000.slice/user@1000.service/app.slice/web.service",
            "host/n/user.slice/user-1000.slice/user@1000.service/app.slice/web.service",
        ),
    ],
)
def test_a_host_service_is_its_unit(path: str, unit: str, root: str, name: str) -> None:
    found = identify(path)
    assert (found.kind, found.unit, found.root) == ("HOST_SERVICE", unit, root)
    assert workload_id(found, "n") == name


def test_a_cgroup_without_a_unit_is_a_workload_of_its_own() -> None:
    found = identify("/batch/night")
    assert (found.kind, found.root, found.grouping) == ("HOST_SERVICE", "/batch/night", False)
    assert workload_id(found, "n") == "host/n/batch/night"


@pytest.mark.parametrize(
    "path", ["/kubepods", "/kubepods/burstable", "/system.slice", "/kubepods.slice/kubepods-besteffort.slice"]
)
def test_what_only_groups_others_is_nobodys_workload(path: str) -> None:
    assert identify(path).grouping


def test_the_root_is_the_host() -> None:
    assert identify("/").kind == "HOST"
    assert workload_id(identify("/"), "n") == "host/n"


def test_a_directory_named_like_a_pod_outside_of_kubepods_is_none() -> None:
    assert identify(f"/tmp/pod{UID}").kind == "HOST_SERVICE"
