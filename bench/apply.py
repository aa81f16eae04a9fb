# SPDX-License-Identifier: Apache-2.0
"""From ``nsp apply`` to the rule in the kernel: a profile changed again and again, on a real Kafka.

``apply_to_kernel_ms`` is from the profile's generation (the wall time at which ``nsp apply`` has read its
file) to the boot time after the last map write, as the sensor acknowledges it. ``command_to_kernel_ms``
begins before the command is started: what a person waits. ``order_to_kernel_ms`` begins when the stream app
has decided.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench import kafka
from bench.statistics import percentile
from demo.attack import boot_to_wall_ns
from demo.errors import DemoError
from demo.observer import Observer
from demo.scene import Scene
from demo.services import run_nsp

if TYPE_CHECKING:
    from collections.abc import Callable

CHANGES: Final = 100
# The first changes find caches empty: the broker's, and the interpreter's bytecode of the command.
WARM_UP: Final = 3
NAMES: Final = 100
CIDRS: Final = 100
APPLIED_TIMEOUT_S: Final = 20.0
PAUSE_S: Final = 0.05
NS_PER_MS: Final = 1_000_000
SUBJECT: Final = "profile/shop/bench"


def run() -> dict[str, Any]:
    """Measure and return ``{"changes", "apply_to_kernel_ms": {"p50", "p99", "max"}, ...}``."""
    with (
        tempfile.TemporaryDirectory(prefix="nsp-bench-apply-") as logs,
        kafka.real_kafka() as broker,
        Scene(Path(logs)) as scene,
    ):
        scene.brokers = broker.bootstrap
        scene.prepare()
        scene.start_stream()
        scene.start_sensor()
        scene.wait_until_sensor_is_healthy()
        scene.wait_until_stream_is_healthy()
        with Observer(scene.brokers, {}) as observer:
            changes = [_change(scene, observer, number) for number in range(WARM_UP + CHANGES)]
    return _figures(changes[WARM_UP:])


def _profile(number: int) -> dict[str, Any]:
    """A profile of 200 rules, one of which is another each time."""
    rules = {
        "fqdns": [f"name-{each}.example" for each in range(NAMES - 1)] + [f"change-{number}.example"],
        "cidr4": [f"10.{each}.0.0/16" for each in range(CIDRS)],
    }
    return {
        "apiVersion": "nsp.security/v1alpha1",
        "kind": "SecurityProfile",
        "metadata": {"name": "bench", "namespace": "shop"},
        "spec": {
            "selector": {"matchLabels": {"app": "client"}},
            "actions": ["enforce"],
            "default": {"egress": rules},
        },
    }


def _change(scene: Scene, observer: Observer, number: int) -> dict[str, int]:
    """Apply one change and wait for its acknowledgement; its times, wall ns."""
    file = scene.workspace.directory / "profile.json"
    file.write_text(json.dumps(_profile(number)))
    known = len(_statuses(observer))
    began_ns = time.time_ns()
    run_nsp("apply", "-f", str(file), "--brokers", scene.brokers)
    done_ns = time.time_ns()
    _wait(lambda: len(_statuses(observer)) > known)
    status = _statuses(observer)[-1]
    if status["outcome"] != "APPLIED":
        raise DemoError(f"change {number}: {status['outcome']}: {status['reason']}")
    time.sleep(PAUSE_S)
    return {
        "began_ns": began_ns,
        "command_ns": done_ns - began_ns,
        "generation": status["profile_generation"],
        "issued_ns": status["issued_at_ns"],
        "applied_ns": status["applied_boot_ns"] + boot_to_wall_ns(),
    }


def _statuses(observer: Observer) -> list[dict[str, Any]]:
    return [each for each in list(observer.read().statuses) if each["subject"] == SUBJECT]


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + APPLIED_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise DemoError(f"a change was not acknowledged within {APPLIED_TIMEOUT_S:.0f} s")
        time.sleep(0.005)


def _figures(changes: list[dict[str, int]]) -> dict[str, Any]:
    return {
        "changes": len(changes),
        "rules": NAMES + CIDRS,
        "apply_to_kernel_ms": _percentiles([each["applied_ns"] - each["generation"] for each in changes]),
        "command_to_kernel_ms": _percentiles([each["applied_ns"] - each["began_ns"] for each in changes]),
        "order_to_kernel_ms": _percentiles([each["applied_ns"] - each["issued_ns"] for each in changes]),
        "command_ms": _percentiles([each["command_ns"] for each in changes]),
    }


def _percentiles(times_ns: list[int]) -> dict[str, float]:
    values = [each / NS_PER_MS for each in times_ns]
    return {
        "p50": round(percentile(values, 50), 1),
        "p99": round(percentile(values, 99), 1),
        "max": round(max(values), 1),
    }
