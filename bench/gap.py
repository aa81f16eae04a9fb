# SPDX-License-Identifier: Apache-2.0
"""The start gap: cgroups that appear, each with a process that connects at once, under ``deny``.

A thousand cgroups are made below a guarded one while the sensor runs; the process of each is born in it and
all it does is socket and connect. What gets through slipped under the policy. The same with nothing in
force is the control: everything gets through.
"""

from __future__ import annotations

import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import scene
from bench.policy import pinned_maps
from sensor.kernel import bpf_syscall as bpf
from sensor.kernel.policy_maps import PolicyMaps
from sensor.kernel.policy_state import WORKLOAD, GrantsValue, PolicyValue
from sensor.kernel.state import U64
from sensor.policy import layout

COUNT = 1_000
POLICY = 4_090


def run() -> dict[str, Any]:
    """Measure and return how many slipped through, with and without the policy."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nsp-bench-")))
        program = str(scene.compile_load("gap", directory))
        guarded = stack.enter_context(scene.Cgroup("gap"))
        brokers = stack.enter_context(scene.embedded_broker())
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=4096))
        stack.enter_context(scene.sensor(brokers, guarded.path))
        port = str(listener.getsockname()[1])
        control = _attempt(program, guarded.path, port)
        maps = stack.enter_context(pinned_maps())
        _deny(maps, guarded.path.stat().st_ino)
        denied = _attempt(program, guarded.path, port)
    return {
        "cgroups": COUNT,
        "slipped": denied[0],
        "refused": denied[1],
        "failed_otherwise": denied[2],
        "control_without_policy": {"through": control[0], "refused": control[1]},
    }


def _attempt(program: str, directory: Path, port: str) -> list[int]:
    """Through, refused, and anything else."""
    said = scene.run_load([program, str(directory), "127.0.0.1", port, str(COUNT)])
    return [int(number) for number in said.split()]


def _deny(maps: dict[str, int], guarded_cgroup_id: int) -> None:
    """What the sensor does for --unknown-workload deny; the loopback stands for another host."""
    policy = PolicyMaps(maps, -1)
    flags = layout.POLICY_UNKNOWN_WORKLOAD | layout.POLICY_LOOPBACK
    policy.write_policy(
        POLICY, PolicyValue(GrantsValue((), layout.MODE_ENFORCE), bytes(15) + b"\1", 1, flags)
    )
    bpf.map_update(maps["workloads"], U64.pack(guarded_cgroup_id), WORKLOAD.pack(0, layout.SLOT_UNKNOWN))
    policy.set_policy_slot(layout.SLOT_UNKNOWN, 1 << 32 | POLICY)
