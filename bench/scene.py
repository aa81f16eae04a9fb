# SPDX-License-Identifier: Apache-2.0
"""What a measurement needs around it: a cgroup, compiled load generators, a sensor, a broker.

Everything carries this process's id and is removed again, also when the measurement fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bench.errors import BenchError
from demo.cgroups import cgroup_v2_mount

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

LOAD_SOURCES = Path(__file__).parent / "load"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
NODE = "bench-node"


def compile_load(name: str, directory: Path) -> Path:
    """Compile one of ``bench/load`` and return the program.

    Raises:
        BenchError: no compiler, or it refused.
    """
    program = directory / name
    command = ["cc", "-O2", "-o", str(program), str(LOAD_SOURCES / f"{name}.c")]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        message = "no C compiler: apt-get install gcc libc6-dev"
        raise BenchError(message) from error
    except subprocess.CalledProcessError as error:
        message = f"{name}.c does not compile: {error.stderr}"
        raise BenchError(message) from error
    return program


def run_load(command: list[str]) -> str:
    """Run a load generator outside of any cgroup of ours; return its stdout."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        message = f"{command[0]} failed: {done.stderr}"
        raise BenchError(message)
    return done.stdout


class Cgroup(AbstractContextManager["Cgroup"]):
    """A cgroup of our own under the v2 root, in which the sensor sees the load."""

    def __init__(self, name: str) -> None:
        """Plan it; made on entering."""
        self.path = cgroup_v2_mount() / f"nsp-bench-{os.getpid()}-{name}"

    def __enter__(self) -> Self:
        """Make it."""
        self.path.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill what is left inside and remove it."""
        (self.path / "cgroup.kill").write_text("1")
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while (self.path / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.02)
        self.path.rmdir()

    def run(self, command: list[str], cpu: int | None = None) -> bytes:
        """Run a program inside, on one CPU if given; return its stdout."""
        done = subprocess.run(self.inside(command, cpu), capture_output=True, check=False)
        if done.returncode:
            message = f"{command[0]} failed: {done.stderr.decode(errors='replace')}"
            raise BenchError(message)
        return done.stdout

    def is_refused(self, command: list[str]) -> bool:
        """Whether a program inside ends because something is not permitted."""
        done = subprocess.run(self.inside(command, None), capture_output=True, check=False)
        return bool(done.returncode) and b"not permitted" in done.stderr

    def start(self, command: list[str], cpu: int | None = None) -> subprocess.Popen[bytes]:
        """Start a program inside."""
        return subprocess.Popen(self.inside(command, cpu), stdout=subprocess.PIPE)

    def inside(self, command: list[str], cpu: int | None) -> list[str]:
        """Return the command that enters the cgroup and then becomes the given one."""
        pinned = ["taskset", "-c", str(cpu), *command] if cpu is not None else command
        script = 'echo $$ > "$1"; shift; exec "$@"'
        return ["sh", "-c", script, "sh", str(self.path / "cgroup.procs"), *pinned]


@dataclass(frozen=True, slots=True)
class Sensor:
    """A running sensor under measurement."""

    process: subprocess.Popen[bytes]
    metrics_address: str

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def metric(self, name: str) -> float:
        """Return the sum of a Prometheus metric over its labels."""
        with urllib.request.urlopen(f"http://{self.metrics_address}/metrics", timeout=5) as response:
            lines = response.read().decode().splitlines()
        values = [
            float(line.rpartition(" ")[2])
            for line in lines
            if line.partition(" ")[0].partition("{")[0] == name
        ]
        if not values:
            message = f"the sensor has no metric {name}"
            raise BenchError(message)
        return sum(values)

    def is_healthy(self) -> bool:
        """Return whether /healthz says 200."""
        try:
            with urllib.request.urlopen(f"http://{self.metrics_address}/healthz", timeout=2) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False


@contextmanager
def sensor(brokers: str, cgroup: Path, *arguments: str, cpu: int | None = None) -> Iterator[Sensor]:
    """Run a sensor on its own pins; at the end stop it and remove the pins."""
    pins = f"/sys/fs/bpf/nsp-bench-{os.getpid()}"
    address = "127.0.0.1:19464"
    command = [
        sys.executable, "-m", "sensor", "--node", NODE, "--brokers", brokers, "--cgroup-root", str(cgroup),
        "--pin-directory", pins, "--metrics-address", address, *arguments,
    ]  # fmt: skip
    if cpu is not None:
        command = ["taskset", "-c", str(cpu), *command]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        running = Sensor(process, address)
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while not running.is_healthy():
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    message = f"the sensor did not start: {log.read().decode(errors='replace')[-2000:]}"
                    raise BenchError(message)
                time.sleep(0.1)
            yield running
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            unload = [sys.executable, "-m", "nsp", "sensor", "unload", "--pin-directory", pins]
            subprocess.run(unload, check=False, capture_output=True)


@contextmanager
def embedded_broker() -> Iterator[str]:
    """Run the in-memory broker and yield its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "nsp.embedded_broker"], stdout=subprocess.PIPE, text=True
    )
    try:
        address = process.stdout.readline().strip() if process.stdout else ""
        if not address:
            message = "the embedded broker did not start"
            raise BenchError(message)
        yield address
    finally:
        process.terminate()
        process.wait()
