# SPDX-License-Identifier: Apache-2.0
"""Profiles of the host's services, by unit, by cgroup path and by executable, on real sockets."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.host_lab import LISTED, Service, host_profile
from tests.support.kernel_lab import Cgroup
from tests.support.kernel_watch import Actor
from tests.support.profile_node import Node, Pod

if TYPE_CHECKING:
    from tests.support.kernel_watch import Watch

HERE, ELSEWHERE = "127.0.0.1", "192.0.2.1"
CONNECT = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try:
    s.connect((sys.argv[1], 9))
except PermissionError:
    print("EPERM")
"""


pytestmark = pytest.mark.usefixtures("slices")


def test_a_unit_is_held_to_its_profile_and_others_are_not(watch: Watch) -> None:
    node = Node(watch)
    web, other = Service(watch, "web.service"), Service(watch, "other.service")
    node.table.walk(watch.cgroup.path)
    assert node.profile(5, **host_profile(unit="web.service"))["outcome"] == "APPLIED"
    assert web.connects_to(LISTED) == "None"
    assert web.connects_to(ELSEWHERE) == "EPERM"
    assert web.connects_to(HERE) == "EPERM", "a host's profile judges the loopback too"
    assert other.connects_to(ELSEWHERE) == "None"
    assert node.profile(6)["outcome"] == "ENDED"
    assert web.connects_to(ELSEWHERE) == "None"


def test_a_unit_that_starts_later_is_held_from_its_first_process(watch: Watch) -> None:
    node = Node(watch)
    node.profile(5, **host_profile(unit="web.service"))
    web = Service(watch, "web.service")  # and nobody in user space looks
    assert web.connects_to(ELSEWHERE) == "EPERM"
    assert web.connects_to(LISTED) == "None"


def test_what_a_service_makes_below_itself_stays_under_its_profile(watch: Watch) -> None:
    node = Node(watch)
    web = Service(watch, "web.service")
    node.table.walk(watch.cgroup.path)
    node.profile(5, **host_profile(unit="web.service"))
    below = Cgroup(web.cgroup.path / "worker" / "deeper")
    below.path.mkdir(parents=True)
    with Actor(below) as actor:
        assert actor.connect("a", ELSEWHERE, 9, kind=2) == "EPERM"
        assert actor.connect("b", LISTED, 9, kind=2) is None


def test_a_cgroup_path_selects_what_is_below_it(watch: Watch) -> None:
    node = Node(watch)
    web, other = Service(watch, "web.service"), Service(watch, "other.service")
    node.table.walk(watch.cgroup.path)
    path = f"/{web.cgroup.path.relative_to(watch.cgroup.path.parent)}"
    assert node.profile(5, **host_profile(cgroup_path=path))["outcome"] == "APPLIED"
    assert web.connects_to(ELSEWHERE) == "EPERM"
    assert other.connects_to(ELSEWHERE) == "None"


def test_an_executable_is_held_wherever_the_host_runs_it_and_not_in_pods(
    watch: Watch, tmp_path: Path
) -> None:
    program = tmp_path / "agent"
    shutil.copy2(Path(sys.executable).resolve(), program)
    node, pod = Node(watch), Pod(watch)
    pod.make()
    web = Service(watch, "web.service")
    node.table.walk(watch.cgroup.path)
    node.send("NodeWorkloads", {
        "node": "node", "subject": "workloads/node", "generation": 1, "issued_at_ns": 1,
        "workloads": [pod.uid],
    })  # fmt: skip
    assert node.profile(5, **host_profile(executable=str(program)))["outcome"] == "APPLIED"

    def run(cgroup: Cgroup, address: str) -> str:
        command = cgroup.command(str(program), "-S", "-c", CONNECT, address)
        environment = {**os.environ, "PYTHONHOME": sys.base_prefix}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert run(web.cgroup, ELSEWHERE) == "EPERM"
    assert run(web.cgroup, LISTED) == ""
    assert run(watch.cgroup, ELSEWHERE) == "EPERM"
    assert run(pod.cgroup, ELSEWHERE) == ""
    assert web.connects_to(ELSEWHERE) == "None", "the service's other programs have no profile"


def test_an_alert_of_the_host_refuses_nothing(watch: Watch) -> None:
    node = Node(watch)
    web = Service(watch, "web.service")
    node.table.walk(watch.cgroup.path)
    node.profile(5, **host_profile("ALERT", unit="web.service"))
    assert web.connects_to(ELSEWHERE) == "None"


def test_unknown_workloads_denied_are_pods_and_not_the_host(watch: Watch) -> None:
    Node(watch, mode="deny")
    web, pod = Service(watch, "web.service"), Pod(watch)
    pod.make()
    assert pod.connects_to(ELSEWHERE) == "EPERM"
    assert web.connects_to(ELSEWHERE) == "None"
    with Actor(watch.cgroup) as login:
        assert login.connect("a", ELSEWHERE, 9, kind=2) is None
