# SPDX-License-Identifier: Apache-2.0
"""The real pipeline beside the hosts: topics' inventory, keys, configuration, stream app, sensor.

The same parts serve the demonstration (embedded broker), the loop benchmark and the chaos tests
(real Kafka): only the broker's address differs.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from demo.errors import DemoError
from demo.processes import start_service, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from demo.cgroups import PodIdentity

COMMAND_TIMEOUT_S = 60
BROKER_START_S = 20.0
NODE = "demo-node"
HTTP_OK = 200
# The embedded broker answers a waiting fetch only when the wait is over; a real one answers at once.
SENSOR_OPTIONS = ("--kafka-option", "fetch.wait.max.ms=10")


def free_address() -> str:
    """Return a loopback address with a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@dataclass(frozen=True, slots=True)
class Workspace:
    """Files and addresses of one run: ``directory`` goes away with it, ``logs`` stays."""

    directory: Path
    logs: Path
    sensor_metrics: str = field(default_factory=free_address)
    stream_metrics: str = field(default_factory=free_address)

    @property
    def config(self) -> Path:
        """The stream app's configuration."""
        return self.directory / "stream.yaml"

    @property
    def keys(self) -> Path:
        """Where the signing key pair is."""
        return self.directory / "keys"

    def log(self, name: str) -> Path:
        """Return the log file of one process."""
        self.logs.mkdir(parents=True, exist_ok=True)
        return self.logs / f"{name}.log"


def run_nsp(*arguments: str) -> str:
    """Run one ``nsp`` command to its end and return its output.

    Raises:
        DemoError: it failed; carries its own words.
    """
    command = [sys.executable, "-m", "nsp", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    if done.returncode:
        message = f"`nsp {' '.join(arguments)}` failed: {(done.stderr or done.stdout).strip()}"
        raise DemoError(message)
    return done.stdout


def inventory(pods: Mapping[str, PodIdentity], addresses: Mapping[str, str]) -> str:
    """Return the pods' metadata, which a Kubernetes controller would publish, as YAML (JSON is YAML)."""
    documents = [
        {
            "uid": pod.uid,
            "namespace": "shop",
            "name": f"{name}-5d8f7c-x2v9k",
            "labels": {"app": name},
            "owner_kind": "Deployment",
            "owner_name": name,
            "service_account": "default",
            "node": NODE,
            "ips": [addresses[name]],
            "containers": [
                {"id": pod.container_id, "name": name, "image": f"registry.example/shop/{name}:1.0"}
            ],
        }
        for name, pod in pods.items()
    ]
    return json.dumps({"pods": documents}, indent=2)


def environment() -> dict[str, str]:
    """Return the environment for the pipeline's processes."""
    return {**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}


def start_broker(workspace: Workspace) -> tuple[subprocess.Popen[str], str]:
    """Start the embedded broker with all topics; return it and its address."""
    address_file = workspace.directory / "broker.address"
    command = [sys.executable, "-m", "nsp.embedded_broker", "--address-file", str(address_file)]
    with workspace.log("broker").open("w") as log:
        process = start_service(command, environment(), log)
    wait_until("the embedded broker", address_file.exists, BROKER_START_S, {"embedded broker": process})
    return process, address_file.read_text().strip()


def start_sensor(
    workspace: Workspace, brokers: str, cgroup_root: Path, pins: str, resolver: str
) -> subprocess.Popen[str]:
    """Start the sensor on the run's own cgroup subtree and pins; it believes one DNS server."""
    command = [
        sys.executable, "-m", "sensor", "--node", NODE, "--brokers", brokers,
        "--cgroup-root", str(cgroup_root), "--pin-directory", pins,
        "--metrics-address", workspace.sensor_metrics, *SENSOR_OPTIONS, "--resolver", resolver,
        "--enforcement-public-key", str(workspace.keys / "enforcement.pub.pem"),
    ]  # fmt: skip
    with workspace.log("sensor").open("a") as log:
        return start_service(command, environment(), log)


def start_stream(workspace: Workspace) -> subprocess.Popen[str]:
    """Start the stream app."""
    command = [sys.executable, "-m", "stream_apps", "--config", str(workspace.config)]
    with workspace.log("stream").open("a") as log:
        return start_service(command, environment(), log)


def unload(pins: str) -> None:
    """Detach everything the sensor left in the kernel."""
    run_nsp("sensor", "unload", "--pin-directory", pins)


def is_healthy(address: str) -> bool:
    """Return whether ``/healthz`` at the address answers 200."""
    try:
        with urllib.request.urlopen(f"http://{address}/healthz", timeout=2) as response:
            return bool(response.status == HTTP_OK)
    except (urllib.error.URLError, OSError):
        return False
