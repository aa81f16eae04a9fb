# SPDX-License-Identifier: Apache-2.0
"""Memory of the sensor with the Kafka client, and its CPU at 1,000 events a second."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import machine, scene
from bench.statistics import median, spread

RATE = 1000
WARM_UP_S = 5
WINDOW_S = 10
WINDOWS = 4
ADDRESS = "127.0.0.78"


def run() -> dict[str, Any]:
    """Measure and return ``{"pss_mb", "cpu_percent_at_1000_eps"}`` with the spread."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nsp-bench-")))
        program = str(scene.compile_load("events", directory))
        cgroup = stack.enter_context(scene.Cgroup("footprint"))
        brokers = stack.enter_context(scene.embedded_broker())
        sensor = stack.enter_context(scene.sensor(brokers, cgroup.path))
        seconds = WARM_UP_S + WINDOW_S * (WINDOWS + 1)
        load = cgroup.start([program, "udp", ADDRESS, str(RATE), str(seconds)])
        stack.callback(load.wait)
        stack.callback(load.kill)
        time.sleep(WARM_UP_S)
        percents, rates = [], []
        for _ in range(WINDOWS):
            cpu, events, start = machine.cpu_seconds(sensor.pid), _published(sensor), time.monotonic()
            time.sleep(WINDOW_S)
            elapsed = time.monotonic() - start
            percents.append(100 * (machine.cpu_seconds(sensor.pid) - cpu) / elapsed)
            rates.append((_published(sensor) - events) / elapsed)
        pss = machine.pss_mb(sensor.pid)
    return {
        "pss_mb": round(pss, 1),
        "cpu_percent_at_1000_eps": round(median(percents), 2),
        "cpu_percent_windows": spread(percents),
        "events_per_s_windows": spread(rates),
    }


def _published(sensor: scene.Sensor) -> float:
    return sensor.metric("nsp_produce_events_acknowledged_total")
