# SPDX-License-Identifier: Apache-2.0
"""The start gap: pods that appear, each connecting at once, under ``--unknown-workload deny``.

A thousand pod cgroups are made below kubepods while the sensor runs; the process of each is born in it and
all it does is socket and connect. What gets through slipped under the policy. The same under ``allow`` is the
control: everything gets through. The loopback is free, so the connects go elsewhere.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import scene

COUNT = 1_000
# TEST-NET-1: nothing answers there, and a datagram socket connects without asking.
ELSEWHERE = "192.0.2.1"


def run() -> dict[str, Any]:
    """Measure and return how many slipped through, with and without the policy."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nsp-bench-")))
        program = str(scene.compile_load("gap", directory))
        root = stack.enter_context(scene.Cgroup("gap"))
        brokers = stack.enter_context(scene.embedded_broker())
        pods = root.path / "kubepods"
        pods.mkdir()
        stack.callback(pods.rmdir)
        found = {mode: _attempt(program, pods, brokers, root.path, mode) for mode in ("allow", "deny")}
    return {
        "cgroups": COUNT,
        "slipped": found["deny"][0],
        "refused": found["deny"][1],
        "failed_otherwise": found["deny"][2],
        "control_allow": {"through": found["allow"][0], "refused": found["allow"][1]},
    }


def _attempt(program: str, pods: Path, brokers: str, root: Path, mode: str) -> list[int]:
    """Through, refused, and anything else."""
    with scene.sensor(brokers, root, "--unknown-workload", mode):
        said = scene.run_load([program, str(pods), ELSEWHERE, "9", str(COUNT)])
    return [int(number) for number in said.split()]
