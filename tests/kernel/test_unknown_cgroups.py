# SPDX-License-Identifier: Apache-2.0
"""Cgroups that nobody has spoken of, and those below and beside workloads, on real sockets."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from sensor.policy import layout
from sensor.policy.layout import SLOT_UNKNOWN
from sensor.publish.layout import CONNECT
from tests.support.host_lab import LISTED, Service, host_profile
from tests.support.kernel_lab import Cgroup
from tests.support.kernel_watch import Actor, Watch
from tests.support.profile_lab import network, traffic
from tests.support.profile_node import NODE, Node, Pod

ELSEWHERE = "192.0.2.1"
DATAGRAM = socket.SOCK_DGRAM
REFUSED, ALERTED = 1, 2
CONNECTING = f"""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try:
    s.connect(("{ELSEWHERE}", 9))
    print("passed")
except PermissionError:
    print("EPERM")
"""


pytestmark = pytest.mark.usefixtures("slices")


def pod_profile(node: Node, *pods: str, name: str = "test") -> None:
    listed = network(traffic(f"{LISTED}/32"))
    assert node.profile(5, *pods, name=name, default=listed, mode="ENFORCE")["outcome"] == "APPLIED"


def shell(cgroup: Cgroup, script: str) -> str:
    """What a shell in a cgroup, which may make others, says; $1 is the cgroup, $2.. connect."""
    command = cgroup.command("sh", "-ec", script, "sh", str(cgroup.path), sys.executable, "-c", CONNECTING)
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("mode", "answer", "verdict"), [("allow", None, 0), ("alert", None, ALERTED), ("deny", "EPERM", REFUSED)]
)
def test_an_unknown_pod_has_the_node_s_mode_from_its_first_process(
    watch: Watch, mode: str, answer: str | None, verdict: int
) -> None:
    Node(watch, mode=mode)
    pod = Pod(watch)
    pod.make()  # and nobody in user space looks
    with Actor(pod.cgroup) as actor:
        assert actor.connect("a", ELSEWHERE, 9, kind=DATAGRAM) == answer
        seen = watch.wait_for(CONNECT, tgid=actor.tgid)
    assert seen["verdict"] == verdict
    assert seen["reason"] == (layout.REASON_UNKNOWN_WORKLOAD if verdict else layout.REASON_NONE)


def test_pods_are_guarded_where_a_kubelet_comes_after_the_sensor(watch: Watch) -> None:
    (watch.cgroup.path / "kubepods").rmdir()
    node = Node(watch, mode="deny")
    watch.kernel.state.drop_workload(watch.cgroup.id)  # the root of a real host is none
    for parent in ("kubepods", "kubepods.slice"):
        path = watch.cgroup.path / parent
        path.mkdir()
        inner = path / "kubepods-burstable.slice"
        inner.mkdir()
        pod = Cgroup(inner / f"kubepods-burstable-pod{'0a' * 16}.slice")
        pod.path.mkdir()
        try:
            with Actor(pod) as actor:
                assert actor.connect("a", ELSEWHERE, 9, kind=DATAGRAM) == "EPERM"
            # It groups workloads: a pod below is one of its own as soon as it is spoken of.
            assert dict(watch.kernel.state.workloads())[path.stat().st_ino] == 0
            known = Pod(watch)
            known.cgroup = Cgroup(inner / f"kubepods-burstable-pod{known.uid.replace('-', '_')}.slice")
            pod_profile(node, known.uid, name=parent.replace(".", "-"))
            known.make()
            assert known.connects_to(LISTED) == "None"
            assert known.connects_to(ELSEWHERE) == "EPERM"
        finally:
            Cgroup(path).remove()
    (watch.cgroup.path / "kubepods").mkdir()


def test_nothing_of_the_host_is_unknown_logins_least_of_all(watch: Watch) -> None:
    node = Node(watch, mode="deny")
    session = Service(watch, "session-1.scope", "user.slice/user-0.slice")
    ssh, other = Service(watch, "ssh.service"), Service(watch, "made-later.service")
    for when in ("at once", "when it has been looked at"):
        for each in (session, ssh, other):
            assert each.connects_to(ELSEWHERE) == "None", (each.cgroup.path.name, when)
        with Actor(watch.cgroup) as login:
            assert login.connect("a", ELSEWHERE, 9, kind=DATAGRAM) is None, when
        node.table.walk(watch.cgroup.path)
        node.controller.profiles.carry_out()
    # Nor when the host has a profile for some other service.
    node.profile(5, **host_profile(unit="third.service"))
    assert ssh.connects_to(ELSEWHERE) == "None"
    assert session.connects_to(ELSEWHERE) == "None"


def test_what_appears_below_a_guarded_slice_waits_to_be_known_and_what_is_there_does_not(
    watch: Watch,
) -> None:
    node = Node(watch, mode="deny")
    there = Service(watch, "ssh.service")
    node.table.walk(watch.cgroup.path)
    slice_path = f"/{(watch.cgroup.path / 'system.slice').relative_to(watch.cgroup.path.parent)}"
    node.table.guard(SLOT_UNKNOWN, (slice_path,))
    new = Service(watch, "new.service")
    assert new.connects_to(ELSEWHERE) == "EPERM"
    assert there.connects_to(ELSEWHERE) == "None"
    node.table.walk(watch.cgroup.path)
    node.controller.profiles.carry_out()
    assert new.connects_to(ELSEWHERE) == "None", "a service of the host is known once it is seen"


def test_a_cgroup_that_a_workload_makes_stays_under_its_profile(watch: Watch) -> None:
    pod = Pod(watch)
    pod.make()
    pod_profile(Node(watch), pod.uid)
    make_and_move = 'mkdir -p "$1/own/deeper"; echo $$ > "$1/own/deeper/cgroup.procs"; shift; exec "$@"'
    assert shell(pod.cgroup, make_and_move) == "EPERM"


def test_names_of_others_inside_of_a_workload_prove_nothing(watch: Watch) -> None:
    pod, free = Pod(watch), Pod(watch)
    pod.make()
    node = Node(watch, mode="deny")
    pod_profile(node, pod.uid)
    known = {"node": NODE, "subject": f"workloads/{NODE}", "generation": 9, "issued_at_ns": 1}
    node.send("NodeWorkloads", {**known, "workloads": [pod.uid, free.uid]})
    for name in ("system.slice/ssh.service", f"kubepods/pod{free.uid}", f"pod{free.uid}"):
        script = f'mkdir -p "$1/{name}"; echo $$ > "$1/{name}/cgroup.procs"; shift; exec "$@"'
        assert shell(pod.cgroup, script) == "EPERM", name


def test_user_space_takes_a_cgroup_below_a_workload_for_that_workload_too(watch: Watch) -> None:
    pod = Pod(watch)
    pod.make()
    node = Node(watch)
    pod_profile(node, pod.uid)
    below = pod.cgroup.path / "system.slice" / "ssh.service"
    below.mkdir(parents=True)
    node.table.walk(watch.cgroup.path)
    node.controller.profiles.carry_out()
    with Actor(Cgroup(below)) as actor:
        assert actor.connect("a", ELSEWHERE, 9, kind=DATAGRAM) == "EPERM"


def test_a_process_moved_within_its_workload_stays_and_moved_to_another_is_that_one_s(watch: Watch) -> None:
    pod, other = Pod(watch), Pod(watch)
    for each in (pod, other):
        each.make()
    inner = pod.cgroup.path / "container"
    inner.mkdir()
    pod_profile(Node(watch), pod.uid)
    with Actor(Cgroup(inner)) as actor:

        def moved_to(cgroup: Cgroup) -> str | None:
            (cgroup.path / "cgroup.procs").write_text(str(actor.tgid))
            answer: str | None = actor.connect("a", ELSEWHERE, 9, kind=DATAGRAM)
            return answer

        second = Cgroup(pod.cgroup.path / "second")
        second.path.mkdir()
        assert moved_to(second) == "EPERM"
        assert moved_to(pod.cgroup) == "EPERM"
        assert moved_to(other.cgroup) is None
        assert moved_to(Cgroup(inner)) == "EPERM"
