# SPDX-License-Identifier: Apache-2.0
"""How many events a second one core of the sensor drains, encodes and gets acknowledged by a real Kafka.

A program connects UDP sockets at a fixed rate on one CPU (one event each); the sensor runs on the other,
beside the broker. The figure is events acknowledged per second of CPU the sensor used, all its threads
included, over windows in steady state. What no batch holds must be in a loss counter: every batch is
read back and the account is drawn. The compressions are compared in the same run.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import kafka, machine, scene
from bench.statistics import median, spread
from stream_apps.correlate.ledger import LossLedger

RATE = 150_000
RING_BYTES = 64 << 20  # so that a pause of the busy broker loses nothing
WINDOW_S, WINDOWS, WARM_UP_S = 3, 4, 3
ADDRESS = "127.0.0.79"
LOAD_CPU = 0
DRAIN_TIMEOUT_S = 60.0
COMPRESSIONS = ("lz4", "zstd")


def run() -> dict[str, Any]:
    """Measure and return ``{"events_per_s_per_core", "unaccounted", "limit_by", ...}``."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nsp-bench-")))
        program = str(scene.compile_load("events", directory))
        cgroup = stack.enter_context(scene.Cgroup("drain"))
        results = {name: _measure(program, cgroup, name) for name in COMPRESSIONS}
    best = max(results, key=lambda name: float(results[name]["events_per_s_per_core"]))
    return {**results[best], "compression": best, "compared": {name: results[name] for name in COMPRESSIONS}}


def _measure(program: str, cgroup: scene.Cgroup, compression: str) -> dict[str, Any]:
    with kafka.real_kafka() as broker:
        options = ("--ring-bytes", str(RING_BYTES), "--compression", compression)
        with scene.sensor(broker.bootstrap, cgroup.path, *options) as sensor:
            load = cgroup.start(
                [program, "udp", ADDRESS, str(RATE), str(WARM_UP_S + WINDOW_S * WINDOWS + 2)], LOAD_CPU
            )
            try:
                windows = _windows(sensor)
            finally:
                load.kill()
                load.wait()
            _wait_until_drained(sensor)
            sent = sensor.metric("nsp_produce_bytes_total") / sensor.metric("nsp_produce_events_total")
        ledger = LossLedger()
        for batch in kafka.batches(broker.bootstrap):
            ledger.add(batch)
    totals = ledger.totals()
    rates = [window["events"] / window["cpu_s"] for window in windows]
    return {
        "events_per_s_per_core": round(median(rates)),
        "events_per_s_per_core_windows": spread(rates),
        "acknowledged_per_s": round(median([window["events"] / window["elapsed_s"] for window in windows])),
        "produced": totals.produced,
        "counted_lost": totals.lost,
        "unaccounted": totals.unaccounted,
        "bytes_per_event": round(sent, 1),
        "limit_by": _limit(windows),
    }


def _windows(sensor: scene.Sensor) -> list[dict[str, Any]]:
    time.sleep(WARM_UP_S)
    windows = []
    for _ in range(WINDOWS):
        before, events, start = _threads(sensor.pid), _acknowledged(sensor), time.monotonic()
        time.sleep(WINDOW_S)
        elapsed = time.monotonic() - start
        after = _threads(sensor.pid)
        used = {name: after[name] - before.get(name, 0.0) for name in after}
        windows.append(
            {
                "events": _acknowledged(sensor) - events,
                "elapsed_s": elapsed,
                "cpu_s": sum(used.values()),
                "used": used,
            }
        )
    return windows


def _acknowledged(sensor: scene.Sensor) -> float:
    return sensor.metric("nsp_produce_events_acknowledged_total")


def _threads(pid: int) -> dict[str, float]:
    """Return CPU seconds by thread name; the interpreter's threads by id, the first is the drain."""
    seconds: dict[str, float] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            text = (task / "stat").read_text()
        except FileNotFoundError:
            continue
        name = text[text.index("(") + 1 : text.rindex(")")]
        name = "drain, decode, encode" if task.name == str(pid) else name
        fields = text.rpartition(")")[2].split()
        seconds[name] = seconds.get(name, 0.0) + (int(fields[11]) + int(fields[12])) / os.sysconf(
            "SC_CLK_TCK"
        )
    return seconds


def _limit(windows: list[dict[str, Any]]) -> str:
    """Return the threads' shares of the CPU used, the largest first."""
    used: dict[str, float] = {}
    for window in windows:
        for name, seconds in window["used"].items():
            used[name] = used.get(name, 0.0) + seconds
    total = sum(used.values())
    shares = sorted(((seconds / total, name) for name, seconds in used.items()), reverse=True)
    return ", ".join(f"{name} {100 * share:.0f} %" for share, name in shares[:3])


def _wait_until_drained(sensor: scene.Sensor) -> None:
    deadline = time.monotonic() + DRAIN_TIMEOUT_S
    while time.monotonic() < deadline:
        if (
            sensor.metric("nsp_ring_held_bytes") == 0
            and sensor.metric("nsp_ring_unread_bytes") < machine.PAGE_BYTES
        ):
            return
        time.sleep(0.2)
