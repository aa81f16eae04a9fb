# SPDX-License-Identifier: Apache-2.0
"""Profiles through everything: ``nsp apply``, a real Kafka, stream app, sensor, kernel, and clients in a pod.

The scene is the demonstration's. The pod under profile is ``client``; ``allowed.demo.test`` and
``other.demo.test`` are two web servers outside of it, on two addresses.
"""

from __future__ import annotations

import json
import subprocess
import urllib.request
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo.observer import Observer
from demo.processes import LAUNCH, WORKLOAD_ENVIRONMENT
from demo.scene import ADDRESSES, Reader, Scene
from demo.services import run_nsp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.kafka_broker import KafkaBroker

ALLOWED, OTHER = "allowed.demo.test", "other.demo.test"
ALLOWED_ADDRESS, OTHER_ADDRESS = ADDRESSES["attacker"], ADDRESSES["web"]
PORT = 8080
PYTHON = str(Path("/usr/bin/python3").resolve())
CURL = str(Path("/usr/bin/curl").resolve())
KEY = "shop/client"
SUBJECT = f"profile/{KEY}"
COMMAND_TIMEOUT_S = 60.0
CURL_NO_SUCH_NAME, CURL_NO_CONNECTION = 6, 7
# One connection that is kept; a line for each request over it, and one when it broke.
OPEN_FLOW = f"""
import http.client, json, sys, time
flow = http.client.HTTPConnection("{ALLOWED_ADDRESS}", {PORT}, timeout=3)
try:
    while True:
        flow.request("GET", "/", headers={{"Connection": "keep-alive"}})
        flow.getresponse().read()
        flow.auto_open = 0
        print(json.dumps({{"event": "passed", "at_wall_ns": time.time_ns()}}), flush=True)
        time.sleep(0.02)
except OSError as error:
    print(json.dumps({{"event": "broke", "error": type(error).__name__}}), flush=True)
"""
# Asks and connects at once, again and again; prints how often it was refused.
RESOLVE_AND_CONNECT = """
import json, socket, sys
name, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
failed = []
for _ in range(count):
    try:
        socket.create_connection((name, port), 3).close()
    except OSError as error:
        failed.append(str(error))
print(json.dumps({"failed": failed}))
"""
DIAL = """
import json, socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 3).close()
    print(json.dumps({"errno": 0}))
except OSError as error:
    print(json.dumps({"errno": error.errno}))
"""


def profile(**spec: Any) -> dict[str, Any]:
    """The pod's profile: python and curl reach the allowed name on its port, nobody else anything."""
    egress = {"fqdns": [ALLOWED], "l4": {"protocolPorts": [{"protocol": "tcp", "ports": [PORT]}]}}
    programs = [{"path": path, "network": {"egress": egress}} for path in (PYTHON, CURL)]
    return {
        "apiVersion": "nsp.security/v1alpha1",
        "kind": "SecurityProfile",
        "metadata": {"name": "client", "namespace": "shop"},
        "spec": {
            "selector": {"matchLabels": {"app": "client"}},
            "actions": ["enforce"],
            "resolvers": [ADDRESSES["dns"]],
            "processes": programs,
            **spec,
        },
    }


@dataclass(slots=True)
class ProfileLoop:
    """A running loop with a pod to govern."""

    scene: Scene
    observer: Observer

    def apply(self, document: dict[str, Any], *, wait: bool = True) -> str:
        """``nsp apply``, and what it printed; waits for the node's answer unless told not to."""
        file = self.scene.workspace.directory / "profile.yaml"
        file.write_text(json.dumps(document))
        waiting = ["--wait", "--timeout", "30"] if wait else []
        return run_nsp("apply", "-f", str(file), "--brokers", self.scene.brokers, *waiting)

    def delete(self) -> str:
        """``nsp delete``, and what it printed when the node had answered."""
        return run_nsp("delete", KEY, "--wait", "--timeout", "30", "--brokers", self.scene.brokers)

    def published_generation(self) -> int:
        """The generation ``nsp get`` shows."""
        header, row = run_nsp("get", KEY, "--brokers", self.scene.brokers).splitlines()
        return int(dict(zip(header.split(), row.split(), strict=True))["GENERATION"])

    def statuses(self, outcome: str) -> list[dict[str, Any]]:
        """What the node said about the profile, in order."""
        return [
            each
            for each in list(self.observer.read().statuses)
            if each["subject"] == SUBJECT and each["outcome"] == outcome
        ]

    def sensor_metric(self, name: str) -> float:
        """The value of one of the sensor's metrics."""
        address = self.scene.workspace.sensor_metrics
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        (value,) = [line.rpartition(" ")[2] for line in lines if line.startswith(f"{name} ")]
        return float(value)

    def in_pod(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program in the pod, to its end."""
        return subprocess.run(
            self._command("client", *command), capture_output=True, text=True, check=False,
            timeout=COMMAND_TIMEOUT_S, env=WORKLOAD_ENVIRONMENT,
        )  # fmt: skip

    def curl(self, url: str) -> int:
        """The exit code of a curl in the pod."""
        return self.in_pod("curl", "--silent", "--output", "/dev/null", "--max-time", "5", url).returncode

    def python(self, code: str, *arguments: str) -> Any:
        """The JSON that a python in the pod printed."""
        done = self.in_pod(PYTHON, "-c", code, *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def dial(self, address: str) -> int:
        """The errno of a connection from the pod; 0: it came up."""
        return int(self.python(DIAL, address, str(PORT))["errno"])

    def open_flow(self) -> Reader:
        """Start a connection that is kept and used."""
        flow = self.scene.start("client", "-c", OPEN_FLOW)
        self.scene.processes.pop("workload client")  # it ends by itself when it is cut
        self.scene.wait("an open flow", lambda: flow.has("passed") or flow.has("broke"))
        return flow

    def serve(self, stack: ExitStack) -> None:
        """Start name server and web servers."""
        zone = (f"{ALLOWED}={ALLOWED_ADDRESS}", f"{OTHER}={OTHER_ADDRESS}")
        self.scene.start("dns", "dns_server.py", ADDRESSES["dns"], *zone)
        for host in ("attacker", "web"):
            command = self._command(
                host, PYTHON, "-m", "http.server", str(PORT),
                "--protocol", "HTTP/1.1", "--directory", "/proc/self/fd",
            )  # fmt: skip
            server = stack.enter_context(
                subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
            stack.callback(server.kill)
        for host in (ALLOWED, OTHER):
            self.scene.wait(f"{host} to serve", lambda url=f"http://{host}:{PORT}/": not self.curl(url))

    def _command(self, host: str, *command: str) -> list[str]:
        resolver = self.scene.workspace.directory / "resolv.conf"
        resolver.write_text(f"nameserver {ADDRESSES['dns']}\noptions timeout:1 attempts:3\n")
        home = self.scene.home(host)
        namespace = self.scene.network.hosts[host].namespace
        return [
            "bash", "-c", LAUNCH, "launch", str(home / "cgroup.procs"), f"/run/netns/{namespace}",
            str(resolver), *command,
        ]  # fmt: skip


@contextmanager
def profile_loop(broker: KafkaBroker, logs: Path) -> Iterator[ProfileLoop]:
    """Run servers, sensor and stream app on a broker without topics yet."""
    broker.create_contract_topics()
    with Scene(logs) as scene, ExitStack() as stack:
        scene.brokers = broker.bootstrap
        scene.prepare()
        scene.start_stream()
        scene.start_sensor()
        scene.wait_until_sensor_is_healthy()
        scene.wait_until_stream_is_healthy()
        names = {pod.uid: name for name, pod in scene.pods.items()}
        with Observer(scene.brokers, names) as observer:
            loop = ProfileLoop(scene, observer)
            loop.serve(stack)
            yield loop
