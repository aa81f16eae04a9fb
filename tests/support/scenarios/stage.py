# SPDX-License-Identifier: Apache-2.0
"""Runs scenarios on the running kernel: hosts in namespaces, pods in cgroups, a real sensor, its events kept.

Input: scenarios. Output: a recording of each, or why it could not be run. Everything happens in network
namespaces without a way out; whatever was made is removed again. Services start before the exploits, a
few scenarios run at a time, and the sensor is ended in peace, so that every event is there.
"""

from __future__ import annotations

import os
import random
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
from tests.support.scenarios.recording import Recording, cut_out
from tests.support.scenarios.services import (
    ACTORS,
    KINDS,
    PYTHON,
    Services,
    UnableError,
    found,
    is_up,
    requests,
)
from tests.support.scenarios.world import (
    DNS,
    INSIDE,
    OUTSIDE,
    OUTSIDE_PORTS,
    PEER,
    PEER_PORTS,
    WORLD,
    ZONE,
)
from tests.support.sensor_process import Reader, SensorProcess, embedded_broker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.scenarios.scenario import Scenario

DNS_SERVER: Final = Path(__file__).parents[3] / "demo" / "workloads" / "dns_server.py"
# What is downloaded and run: a copy of a program that connects.
PROGRAM: Final = "/usr/bin/nc"
HOSTS: Final = {"inside": INSIDE, "peer": PEER, "dns": DNS, "outside": OUTSIDE}
AT_ONCE: Final = 4
START_S: Final = 20.0
SCRIPT_S: Final = 40.0
# Longer than judge.CONFIGURATION's start_grace_s.
# Requests a second to a service's own work, and the longest pause.
PACE, LONGEST_PAUSE_S = 6.0, 1.0
GRACE_S: Final = 1.5
FIRST_PORT: Final = 8100


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
            self._services = Services()
            stack.callback(self._services.remove)
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
        self._serve("dns", PYTHON, str(DNS_SERVER), DNS, *zone)
        certificate = self._certificate()
        for host, ports in (("outside", OUTSIDE_PORTS), ("peer", PEER_PORTS)):
            program = [PYTHON, str(ACTORS / "outside.py"), PROGRAM, certificate]
            process = self._serve(host, *program, *map(str, ports))
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"

    def _certificate(self) -> str:
        """What an attacker shows who wants TLS."""
        pem = str(self._directory / "outside.pem")
        run_command(
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-days", "2", "-subj", "/CN=outside", "-keyout", pem, "-out", f"{pem}.crt",
        )  # fmt: skip
        with Path(pem).open("a") as file:
            file.write(Path(f"{pem}.crt").read_text())
        return pem

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
            found(program)
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
        process = self._start("inside", home, self._services.command(language, port))
        deadline = time.monotonic() + START_S
        while self._outside(*is_up(language, port)).returncode:
            if process.poll() is not None or time.monotonic() > deadline:
                message = f"the {language} service did not start"
                raise UnableError(message)
            time.sleep(0.05)

    def _act(self, scenario: Scenario, home: Path, port: int) -> str:
        """Do it; what went wrong, if anything."""
        knock = None
        if scenario.knock:
            namespace = self._network.hosts["outside"].namespace
            command = ["ip", "netns", "exec", namespace, "sh", "-c", scenario.knock]
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
        if kind in KINDS:
            failed, dice = [], random.Random(5)
            for each in requests(kind, rest, script, port):
                failed.append(self._outside(*each).returncode)
                # Customers come as they like, not at even times.
                time.sleep(min(dice.expovariate(PACE), LONGEST_PAUSE_S) if rest == "fetch" else 0)
            return f"the service did not answer: {failed}" if kind != "postgres" and any(failed) else ""
        process = self._start("inside", home, ["/bin/sh", "-c", script])
        process.communicate(timeout=SCRIPT_S)
        return ""

    def _outside(self, *command: str) -> subprocess.CompletedProcess[bytes]:
        namespace = self._network.hosts["outside"].namespace
        return subprocess.run(
            ["ip", "netns", "exec", namespace, *command], capture_output=True, timeout=SCRIPT_S, check=False
        )


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
