# SPDX-License-Identifier: Apache-2.0
"""Runs scenarios on the running kernel: hosts in namespaces, pods in cgroups, a real sensor, its events kept.

Input: scenarios. Output: a recording of each, or why it could not be run. Everything happens in network
namespaces without a way out; whatever was made is removed again. Services start before the exploits, a
few scenarios run at a time, and the sensor is ended in peace, so that every event is there.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Self

from demo.cgroups import Cgroups, pod_identity
from demo.network import Network, run_command
from demo.processes import WORKLOAD_ENVIRONMENT, launch_command
from tests.support.kernel_lab import make_pin_directory, remove_pins
from tests.support.scenarios.catalogue import (
    DNS,
    INSIDE,
    OUTSIDE_PORTS,
    PEER,
    PEER_PORTS,
    WORLD,
    ZONE,
)  # fmt: skip
from tests.support.scenarios.recording import Recording, cut_out
from tests.support.sensor_process import Reader, SensorProcess, embedded_broker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.scenarios.catalogue import Scenario

ACTORS: Final = Path(__file__).parent / "actors"
DNS_SERVER: Final = Path(__file__).parents[3] / "demo" / "workloads" / "dns_server.py"
# What is downloaded and run: a copy of a program that connects.
PROGRAM: Final = "/usr/bin/nc"
HOSTS: Final = {"inside": INSIDE, "peer": PEER, "dns": DNS, "outside": "10.77.0.66"}
AT_ONCE: Final = 4
START_S: Final = 20.0
SCRIPT_S: Final = 40.0
# Longer than judge.CONFIGURATION's start_grace_s.
GRACE_S: Final = 1.5
FIRST_PORT: Final = 8100
_LANGUAGES: Final = {
    "python": ["/usr/bin/python3", str(ACTORS / "service.py")],
    "java": ["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", str(ACTORS / "Service.java")],
    "node": ["node", str(ACTORS / "service.js")],
    "perl": ["perl", str(ACTORS / "service.pl")],
    "php": ["php", "-S"],
}  # fmt: skip


class UnableError(Exception):
    """A scenario cannot be run here; says why."""


class Stage:
    """Hosts, pods, sensor and broker of one run.

    Args:
        directory: For logs and scratch.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = ExitStack()
        self._run = os.getpid()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._log: IO[str] = stack.enter_context((self._directory / "workloads.log").open("w"))
            self._network = stack.enter_context(Network(self._run, HOSTS))
            self._cgroups = stack.enter_context(Cgroups(self._run))
            self._resolver = self._directory / "resolv.conf"
            self._resolver.write_text(f"nameserver {DNS}\noptions timeout:1 attempts:2\n")
            self._stack = stack.pop_all()
        self._wire()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def play(self, scenarios: Sequence[Scenario]) -> tuple[list[Recording], dict[str, str]]:
        """Run all; the recordings, and the reason for each that could not be run."""
        unable: dict[str, str] = {}
        ports = {each.name: FIRST_PORT + number for number, each in enumerate(scenarios)}
        with embedded_broker(self._directory) as (brokers, _), Reader(brokers) as reader:
            pins = make_pin_directory()
            self._stack.callback(remove_pins, pins)
            sensor = SensorProcess(
                brokers, self._cgroups.root, pins, self._directory / "sensor.log", ring_bytes=16 << 20,
                options=("--resolver", DNS, "--interfaces", "off"),
            ).started()  # fmt: skip
            self._stack.callback(sensor.process.kill)
            homes: dict[str, Path] = {}
            for each in scenarios:
                try:
                    homes[each.name] = self._prepare(each, ports[each.name])
                except UnableError as error:
                    unable[each.name] = str(error)
            time.sleep(GRACE_S)
            with ThreadPoolExecutor(AT_ONCE) as pool:
                runs = {
                    each.name: pool.submit(self._act, each, homes[each.name], ports[each.name])
                    for each in scenarios
                    if each.name in homes
                }
            for name, run in runs.items():
                if problem := run.result():
                    unable[name] = problem
            assert sensor.end(signal.SIGTERM) == 0
            reader.poll()
        done = [each for each in scenarios if each.name not in unable]
        mount = self._cgroups.root.parent
        paths = {name: f"/{home.relative_to(mount)}" for name, home in homes.items()}
        return [cut_out(each, paths[each.name], reader.batches) for each in done], unable

    def _wire(self) -> None:
        inside, outside = self._network.hosts["inside"], self._network.hosts["outside"]
        for address in WORLD:
            run_command("ip", "-n", outside.namespace, "address", "add", f"{address}/32", "dev", "eth0")
        run_command("ip", "-n", inside.namespace, "route", "add", "default", "via", outside.address)
        zone = [f"{name}={address}" for name, address in ZONE.items()]
        self._serve("dns", "/usr/bin/python3", str(DNS_SERVER), DNS, *zone)
        for host, ports in (("outside", OUTSIDE_PORTS), ("peer", PEER_PORTS)):
            actor = str(ACTORS / "outside.py")
            process = self._serve(host, "/usr/bin/python3", actor, PROGRAM, *map(str, ports))
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"

    def _serve(self, host: str, *program: str) -> subprocess.Popen[str]:
        return self._start(host, self._cgroups.outside, program)

    def _start(self, host: str, cgroup: Path, program: Sequence[str]) -> subprocess.Popen[str]:
        command = launch_command(self._network.hosts[host], cgroup, self._resolver, program)
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._log, text=True,
            env=WORKLOAD_ENVIRONMENT, cwd="/",
        )  # fmt: skip
        self._stack.callback(_end, process)
        return process

    def _prepare(self, scenario: Scenario, port: int) -> Path:
        """The workload's cgroup; its service runs."""
        for program in scenario.needs:
            if not shutil.which(program, path=WORKLOAD_ENVIRONMENT["PATH"]):
                raise UnableError(f"{program} is not installed")
        kind, _, rest = scenario.via.partition(" ")
        if kind == "unit":
            home = self._cgroups.root / "system.slice" / rest
            home.mkdir(parents=True)
            return home
        identity = pod_identity(self._run, scenario.name)
        home = self._cgroups.add_pod(identity)
        if kind != "entry":
            self._start_service("python" if kind == "probe" else kind, home, port)
        return home

    def _start_service(self, language: str, home: Path, port: int) -> None:
        program = _LANGUAGES[language]
        if not shutil.which(program[0], path=WORKLOAD_ENVIRONMENT["PATH"]):
            raise UnableError(f"{program[0]} is not installed")
        if language == "java" and not _compiles_java():
            raise UnableError("a Java compiler is not installed")
        place = [f"0.0.0.0:{port}", str(ACTORS / "service.php")] if language == "php" else [str(port)]
        process = self._start("inside", home, [*program, *place])
        deadline = time.monotonic() + START_S
        while not self._answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise UnableError(f"the {language} service did not start")
            time.sleep(0.05)

    def _answers(self, port: int) -> bool:
        address = f"http://{INSIDE}:{port}/"
        return self._outside("curl", "-s", "-o", "/dev/null", "-m", "2", address).returncode == 0

    def _act(self, scenario: Scenario, home: Path, port: int) -> str:
        """Do it; what went wrong, if anything."""
        knock = None
        if scenario.knock:
            words = scenario.knock.replace("{INSIDE}", INSIDE)
            command = ["ip", "netns", "exec", self._network.hosts["outside"].namespace, "sh", "-c", words]
            knock = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self._log)
        try:
            return self._run_script(scenario, home, port)
        except subprocess.TimeoutExpired:
            return f"not done within {SCRIPT_S:.0f} s"
        finally:
            if knock is not None:
                knock.wait(SCRIPT_S)

    def _run_script(self, scenario: Scenario, home: Path, port: int) -> str:
        kind, _, rest = scenario.via.partition(" ")
        script = scenario.script.replace("{PORT}", str(port))
        if kind in _LANGUAGES:
            url = f"http://{INSIDE}:{port}/{rest or 'run'}"
            if rest == "work":
                done = self._outside("curl", "-s", f"{url}?{script}")
            else:
                key = "u" if rest == "fetch" else "c"
                done = self._outside("curl", "-s", "-G", "--data-urlencode", f"{key}={script}", url)
            return f"the service did not answer: {done.returncode}" if done.returncode else ""
        process = self._start("inside", home, ["/bin/sh", "-c", script])
        process.communicate(timeout=SCRIPT_S)
        return ""

    def _outside(self, *command: str) -> subprocess.CompletedProcess[bytes]:
        namespace = self._network.hosts["outside"].namespace
        return subprocess.run(
            ["ip", "netns", "exec", namespace, *command], capture_output=True, timeout=SCRIPT_S, check=False
        )


def _compiles_java() -> bool:
    """A runtime without the compiler cannot start a program from its source."""
    modules = subprocess.run(["java", "--list-modules"], capture_output=True, text=True, check=False)
    return "jdk.compiler" in modules.stdout


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
