# SPDX-License-Identifier: Apache-2.0
"""A way around a profile: more cgroups than there is room for."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from sensor.kernel import Kernel, KernelOptions
from tests.support.kernel_lab import Cgroup
from tests.support.profile_lab import ProfileLab, network

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.kernel

ROOM = 8
CONNECT = """
import socket, sys
try: socket.socket().connect(("127.0.0.1", 9))
except PermissionError: print("EPERM")
except ConnectionRefusedError: print("passed")
"""


def test_a_cgroup_that_finds_no_room_is_still_its_workloads(options: KernelOptions, cgroup: Cgroup) -> None:
    def connects(path: Path) -> str:
        command = Cgroup(path).command(sys.executable, "-c", CONNECT)
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    pod = cgroup.path / "pod"
    pod.mkdir()
    with closing(Kernel.start(dataclasses.replace(options, max_workloads=ROOM))) as kernel:
        lab = ProfileLab(kernel)
        lab.govern(lab.slot_for(Cgroup(pod).id), network())
        for number in range(2 * ROOM):
            (pod / str(number)).mkdir()
        assert kernel.counters()["workload_map_full"]
        assert Cgroup(pod / str(2 * ROOM - 1)).id not in dict(kernel.state.workloads())
        assert connects(pod / str(2 * ROOM - 1)) == "EPERM"
        assert connects(cgroup.path) == "passed"
