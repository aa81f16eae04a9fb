# SPDX-License-Identifier: Apache-2.0
"""The real pipeline of the demonstration: embedded broker, topics, keys, stream app, sensor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from demo.errors import DemoError
from demo.processes import start_service

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from demo.cgroups import PodIdentity

COMMAND_TIMEOUT_S = 60
NODE = "demo-node"


@dataclass(frozen=True, slots=True)
class Workspace:
    """Files of one run."""

    directory: Path

    @property
    def config(self) -> Path:
        """The stream apps' configuration."""
        return self.directory / "stream.yaml"

    @property
    def inventory(self) -> Path:
        """The pods' metadata."""
        return self.directory / "pods.yaml"

    @property
    def keys(self) -> Path:
        """Where the signing key pair is."""
        return self.directory / "keys"

    def log(self, name: str) -> Path:
        """Return the log file of one process."""
        return self.directory / f"{name}.log"


def run_nsp(*arguments: str) -> str:
    """Run one ``nsp`` command to its end and return its output.

    Raises:
        DemoError: it failed; carries its own words.
    """
    command = [sys.executable, "-m", "nsp", *arguments]
    done = subprocess.run(  # noqa: S603 - our own command
        command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
    )
    if done.returncode:
        message = f"`nsp {' '.join(arguments)}` failed: {(done.stderr or done.stdout).strip()}"
        raise DemoError(message)
    return done.stdout


def write_inventory(path: Path, pods: Mapping[str, PodIdentity], addresses: Mapping[str, str]) -> None:
    """Write the pods' metadata, which a Kubernetes controller would publish, for ``nsp inventory``."""
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
    path.write_text(json.dumps({"pods": documents}, indent=2))  # JSON is YAML


def environment() -> dict[str, str]:
    """Return the environment for the pipeline's processes."""
    return {**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}


def start_broker(workspace: Workspace) -> tuple[subprocess.Popen[str], str]:
    """Start the embedded broker with all topics; return it and its address."""
    address_file = workspace.directory / "broker.address"
    with workspace.log("broker").open("w") as log:
        process = start_service(
            [sys.executable, "-m", "nsp.embedded_broker", "--address-file", str(address_file)],
            environment(),
            log,
        )
    from demo.processes import wait_until  # noqa: PLC0415

    wait_until("the embedded broker", lambda: address_file.exists() and bool(address_file.read_text()), 20.0, {"broker": process})
    return process, address_file.read_text().strip()
