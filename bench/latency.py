# SPDX-License-Identifier: Apache-2.0
"""What the sensor adds to a workload: DNS round trip, TCP connect and exec, off against on.

Method: rounds; in each an "off" block (nothing loaded) and an "on" block (sensor live, every event
published to the embedded broker), order swapped every round, client and server on CPU 0, sensor and
broker on the others. ``added_us_median`` is the median over rounds of the difference of the block
medians, ``ratio`` of their ratio: what the machine does between rounds cancels out.
"""

from __future__ import annotations

import array
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import scene
from bench.errors import BenchError
from bench.statistics import median, percentile, spread

if TYPE_CHECKING:
    import subprocess

ROUNDS = 10
WARM_UP = 300
SAMPLES = {"dns": 5000, "connect": 4000, "exec": 400}
SERVER = "127.0.0.77"
CLIENT_CPU, SENSOR_CPU = 0, 1
SETTLE_S = 1.5  # after load or unload: inventory published, caches calm
NS_PER_US = 1000


@dataclass(slots=True)
class Samples:
    """All samples of one operation, ns, by block."""

    off: list[array.array[int]] = field(default_factory=list)
    on: list[array.array[int]] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """Return the figures of the issue, with the spread over rounds."""
        differences = [
            (median(on) - median(off)) / NS_PER_US for off, on in zip(self.off, self.on, strict=True)
        ]
        off = [value for block in self.off for value in block]
        on = [value for block in self.on for value in block]
        return {
            "added_us_median": round(median(differences), 2),
            "added_us_median_rounds": spread(differences),
            "ratio": round(
                median([median(on) / median(off) for off, on in zip(self.off, self.on, strict=True)]), 3
            ),
            "added_us_p99": round((percentile(on, 99) - percentile(off, 99)) / NS_PER_US, 2),
            "off_us_median": round(median(off) / NS_PER_US, 2),
            "on_us_median": round(median(on) / NS_PER_US, 2),
        }


def run() -> dict[str, Any]:
    """Measure and return ``{"dns": {...}, "connect": {...}, "exec": {...}}``."""
    samples = {name: Samples() for name in SAMPLES}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nsp-bench-")))
        program = str(scene.compile_load("latency", directory))
        inside = stack.enter_context(scene.Cgroup("latency"))
        outside = stack.enter_context(scene.Cgroup("latency-server"))
        serve(stack, outside, program)
        brokers = stack.enter_context(scene.embedded_broker())
        for number in range(ROUNDS):
            for live in (False, True) if number % 2 else (True, False):
                _block(program, inside, brokers, samples, live=live)
    return {name: taken.figures() for name, taken in samples.items()} | {"rounds": ROUNDS}


def serve(stack: ExitStack, outside: scene.Cgroup, program: str) -> None:
    """Run the server of the load generator until the stack ends."""
    server = outside.start([program, "serve", SERVER], CLIENT_CPU)
    stack.callback(_end, server)
    if server.stdout is None or server.stdout.readline() != b"ready\n":
        message = f"the server on {SERVER} did not start: is port 53, 7777 or 7778 taken?"
        raise BenchError(message)


def _block(
    program: str, inside: scene.Cgroup, brokers: str, samples: dict[str, Samples], *, live: bool
) -> None:
    with ExitStack() as stack:
        if live:
            stack.enter_context(scene.sensor(brokers, inside.path, cpu=SENSOR_CPU))
        time.sleep(SETTLE_S)
        for name, count in SAMPLES.items():
            inside.run([program, name, SERVER, str(min(WARM_UP, count))], CLIENT_CPU)
            taken = array.array("I", inside.run([program, name, SERVER, str(count)], CLIENT_CPU))
            (samples[name].on if live else samples[name].off).append(taken)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
