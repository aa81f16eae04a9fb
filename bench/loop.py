# SPDX-License-Identifier: Apache-2.0
"""A hundred attacks through the whole loop on a real Kafka: how soon is each cut?

Each attack is a request to the demonstration's shop whose injected shell connects back to the
attacker's host. ``time_to_block_ms`` is from the kernel time of the first forbidden event to the time
after the last map write, both on the node's boot clock, as the sensor acknowledges them.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from bench import kafka
from bench.statistics import percentile
from demo.attack import boot_to_wall_ns
from demo.errors import DemoError
from demo.observer import Observer
from demo.scene import Scene
from demo.story import wait_until_quiet

ATTACKS = 100
PAUSE_S = 0.1
CUT_TIMEOUT_S = 20.0
NS_PER_MS = 1_000_000
# Every attack comes from the same pod, a hundred within a minute: no limit may stand in the way.
LIMITS = """
  nsp.rce-egress: {per_minute: 100000, burst: 100000, max_trees_per_minute: 10000}
  nsp.reverse-shell: {per_minute: 100000, burst: 100000, max_trees_per_minute: 10000}
  node_per_minute: 100000
  node_burst: 100000
"""


def run() -> dict[str, Any]:
    """Measure and return ``{"attacks", "cut", "time_to_block_ms": {"p50", "p99"}, ...}``."""
    config = (Path(__file__).parent.parent / "demo" / "stream.yaml").read_text().rstrip() + LIMITS
    with (
        tempfile.TemporaryDirectory(prefix="nsp-bench-loop-") as logs,
        kafka.real_kafka() as broker,
        Scene(Path(logs), config) as scene,
    ):
        scene.brokers = broker.bootstrap
        scene.prepare()
        scene.start_stream()
        scene.start_sensor()
        scene.wait_until_sensor_is_healthy()
        scene.wait_until_stream_is_healthy()
        with Observer(scene.brokers, {}) as observer:
            customer = scene.start_shop(observer)
            attacker = scene.start_attacker()
            for number in range(ATTACKS):
                attacker.tell("go")
                _wait_for(observer, number + 1)
                time.sleep(PAUSE_S)
            scene.end("workload client")
            wait_until_quiet(observer)
            return _figures(observer, customer.lines[-1])


def _applied(observer: Observer) -> dict[str, dict[str, Any]]:
    """Return the first acknowledgement of each subject."""
    found: dict[str, dict[str, Any]] = {}
    for status in list(observer.read().statuses):
        if status["outcome"] == "APPLIED":
            found.setdefault(status["subject"], status)
    return found


def _wait_for(observer: Observer, count: int) -> None:
    deadline = time.monotonic() + CUT_TIMEOUT_S
    while len(_applied(observer)) < count:
        if time.monotonic() > deadline:
            text = f"attack {count} was not cut within {CUT_TIMEOUT_S:.0f} s"
            raise DemoError(text)
        time.sleep(0.005)


def _figures(observer: Observer, customer: dict[str, Any]) -> dict[str, Any]:
    applied = _applied(observer)
    offset = boot_to_wall_ns()
    to_map = [(each["applied_boot_ns"] - each["evidence_boot_ns"]) / NS_PER_MS for each in applied.values()]
    to_decision = [
        (each["issued_at_ns"] - offset - each["evidence_boot_ns"]) / NS_PER_MS for each in applied.values()
    ]
    return {
        "attacks": ATTACKS,
        "cut": len(applied),
        "time_to_block_ms": _percentiles(to_map),
        "decided_ms": _percentiles(to_decision),
        "service_requests": customer["requests"],
        "service_requests_failed": customer["failed"],
    }


def _percentiles(values: list[float]) -> dict[str, float]:
    return {
        "p50": round(percentile(values, 50), 1),
        "p99": round(percentile(values, 99), 1),
        "max": round(max(values), 1),
    }
