# SPDX-License-Identifier: Apache-2.0
"""The sensor as a process: from the hook to Kafka, through kills and a broker that is away."""

from __future__ import annotations

import signal
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.kernel_lab import Cgroup
from tests.support.sensor_process import Reader, SensorProcess, embedded_broker, wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

POD = str(uuid.UUID(int=7))
CONTAINER = "c0ffee" + "0" * 58

# Serves; told an address, it starts a shell that starts a program that connects there.
SERVICE = """
import socket, subprocess, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
for port in sys.stdin:
    code = "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
    code += f"s.connect(('127.0.0.1', {port.strip()}))"
    subprocess.run(["sh", "-c", '"$0" -c "$1"; true', sys.executable, code], check=True)
    print("done", flush=True)
"""


class Service:
    """An exploited service in a pod's cgroup."""

    def __init__(self, pod: Cgroup) -> None:
        self.process = pod.python(SERVICE)
        self.told()

    def told(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def attack(self, port: int) -> None:
        """Have a descendant connect to a port."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{port}\n")
        self.process.stdin.flush()
        assert self.told() == "done\n"

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def pod(cgroup: Cgroup) -> Cgroup:
    path = cgroup.path / "kubepods" / "besteffort" / f"pod{POD}" / CONTAINER
    path.mkdir(parents=True)
    return Cgroup(path)


@pytest.fixture
def service(pod: Cgroup) -> Iterator[Service]:
    """Starts before the sensor: only the inventory knows that it serves."""
    running = Service(pod)
    yield running
    running.end()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with embedded_broker(tmp_path) as running:
        yield running


class Lab:
    """A sensor that can be ended and started again, and a reader of its topic."""

    def __init__(self, brokers: str, cgroup: Cgroup, pins: Path, log: Path) -> None:
        self._arguments = (brokers, cgroup.path, pins, log)
        self.running: list[SensorProcess] = []
        self.reader = Reader(brokers)

    def start(self) -> SensorProcess:
        self.running.append(SensorProcess(*self._arguments))
        return self.running[-1].started()

    def connected(self, port: int) -> list[Any]:
        """Wait for the connect to a port."""
        return self.reader.wait_for("SocketConnect", lambda event, _: bool(event["remote_port"] == port))

    def settle(self) -> None:
        """End the sensor in peace and read to the end."""
        assert self.running[-1].end(signal.SIGTERM) == 0
        self.reader.poll()


@pytest.fixture
def lab(
    broker: tuple[str, subprocess.Popen[bytes]], cgroup: Cgroup, pin_directory: Path, tmp_path: Path
) -> Iterator[Lab]:
    made = Lab(broker[0], cgroup, pin_directory, tmp_path / "sensor.log")
    with made.reader:
        yield made
    for sensor in made.running:
        sensor.process.kill()
        sensor.process.wait()


def test_a_connect_carries_pod_and_lineage_down_from_the_service(lab: Lab, service: Service) -> None:
    lab.start()
    service.attack(4242)
    _, lineage, batch = lab.connected(4242)
    names = [image["executable"].rpartition("/")[2] for image in lineage]
    python = lineage[0]["executable"].rpartition("/")[2]
    assert names[0] == python
    assert any(name in {"sh", "dash", "bash"} for name in names)
    server = next(image for image in lineage if image["serving"])
    assert (server["tgid"], server["origin"]) == (service.process.pid, "INVENTORY")
    assert server["argv"][1] == "-c"
    workload = batch["workloads"][lineage[0]["workload"]]
    assert (workload["kind"], workload["id"], workload["container_id"]) == ("POD", POD, CONTAINER)
    assert workload["cgroup_path"].endswith(f"/kubepods/besteffort/pod{POD}/{CONTAINER}")
    lab.settle()
    assert lab.reader.unaccounted() == {}
    assert lab.reader.repeated == 0


def test_a_pod_made_while_it_runs_is_known_by_its_first_exec(lab: Lab, cgroup: Cgroup) -> None:
    lab.start()
    other = str(uuid.UUID(int=9))
    path = cgroup.path / "kubepods" / f"pod{other}" / CONTAINER
    path.mkdir(parents=True)
    Cgroup(path).run("true")
    name = "true"
    _, lineage, batch = lab.reader.wait_for(
        "ProcessExec",
        lambda _, chain: bool(chain[0]["argv"] == [name]) and chain[0]["executable"].endswith("/true"),
    )
    assert batch["workloads"][lineage[0]["workload"]]["id"] == other


def test_a_killed_sensor_loses_nothing_and_its_successor_goes_on(lab: Lab, service: Service) -> None:
    first = lab.start()
    service.attack(4301)
    lab.connected(4301)
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    service.attack(4302)  # while nobody reads
    second = lab.start()
    assert second.health()[1]["adopted"]
    _, lineage, _ = lab.connected(4302)

    assert any(image["serving"] and image["tgid"] == service.process.pid for image in lineage)
    notices = [event for name, event, _ in lab.reader.events if name == "nsp.SensorNotice"]
    kinds = [event["kind"] for event in notices if event["kind"] != "SELF_TEST"]
    assert kinds == ["STARTED", "ADOPTED"]
    lab.settle()
    sequences = [batch["sequence"] for batch in lab.reader.batches]
    assert sorted(set(sequences)) == list(range(1, max(sequences) + 1))
    assert lab.reader.unaccounted() == {}


def test_a_broker_that_is_away_costs_nothing_that_fits_the_ring(
    lab: Lab, service: Service, broker: tuple[str, subprocess.Popen[bytes]]
) -> None:
    sensor = lab.start()
    broker[1].send_signal(signal.SIGSTOP)
    for port in range(4400, 4410):
        service.attack(port)
    wait_until(lambda: sensor.health()[1]["unacknowledged_batches"] > 0, "batches on their way")
    assert sensor.health()[1]["ring_held_bytes"] > 0
    broker[1].send_signal(signal.SIGCONT)
    lab.connected(4409)
    lab.settle()
    assert lab.reader.unaccounted() == {}
    assert lab.reader.repeated == 0


def test_a_sensor_told_to_end_does_so_with_everything_acknowledged(lab: Lab, service: Service) -> None:
    lab.start()
    service.attack(4500)
    started = time.monotonic()
    lab.settle()
    assert time.monotonic() - started < 20
    assert any(event.get("remote_port") == 4500 for _, event, _ in lab.reader.events)


def test_a_second_sensor_on_the_same_pins_is_refused_with_the_reason(lab: Lab) -> None:
    lab.start()
    second = SensorProcess(*lab._arguments)
    assert second.process.wait(20) == 1
    assert (
        "PinsInUse" in lab._arguments[3].read_text()
        or "another sensor" in lab._arguments[3].read_text().lower()
    )
