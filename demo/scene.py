# SPDX-License-Identifier: Apache-2.0
"""The scene: hosts, pods, the pipeline around them, and everything's end.

Used by the story, by the loop benchmark and by the chaos tests. A context manager: whatever was
started or made is ended and removed in reverse order, whatever happens in between.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from demo import services
from demo.cgroups import Cgroups, PodIdentity, pod_identity
from demo.network import Network
from demo.processes import start_workload, stop, wait_until

if TYPE_CHECKING:
    import subprocess
    from types import TracebackType

    from demo.observer import Observer

ADDRESSES = {"web": "10.77.0.10", "client": "10.77.0.20", "dns": "10.77.0.53", "attacker": "10.77.0.66"}
SHOP_PORT, FIRST_SHELL_PORT = 8080, 4444
ATTACKER_NAME = "updates.evil.test"
ZONE = ("shop.demo.test=10.77.0.10", f"{ATTACKER_NAME}=@cdn.evil.test", "cdn.evil.test=10.77.0.66")
START_TIMEOUT_S = 60.0


@dataclass(slots=True)
class Reader:
    """Reads a process's JSON lines in a thread, so that its pipe never fills."""

    process: subprocess.Popen[str]
    lines: list[dict[str, Any]] = field(default_factory=list)

    def start(self) -> Reader:
        """Start reading."""
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def _run(self) -> None:
        if self.process.stdout is None:
            return
        with self.process.stdout as lines:
            for line in lines:
                self.lines.append(json.loads(line))

    def has(self, event: str) -> bool:
        """Return whether a line with this event was read."""
        return any(line.get("event") == event for line in self.lines)

    def tell(self, text: str) -> None:
        """Write one line to the process."""
        if self.process.stdin is not None:
            self.process.stdin.write(text + "\n")
            self.process.stdin.flush()


class Scene:
    """Hosts, pods and pipeline of one run."""

    def __init__(self, logs: Path, config: str | None = None) -> None:
        """Plan a scene whose logs go to a directory.

        Args:
            logs: directory for the processes' logs.
            config: text of the stream app's configuration with ``{brokers}``, ``{metrics}`` and
                ``{key}`` to be filled in; None takes the demonstration's.
        """
        self.run_id = os.getpid()
        self.pods: dict[str, PodIdentity] = {
            name: pod_identity(self.run_id, name) for name in ("web", "client")
        }
        self.pins = f"/sys/fs/bpf/nsp-demo-{self.run_id}"
        self.brokers = ""
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self._config = config if config is not None else (Path(__file__).parent / "stream.yaml").read_text()
        self._logs = logs
        self._unloads = False
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Make the hosts and cgroups."""
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nsp-demo-")))
            self.workspace = services.Workspace(directory, self._logs)
            self.network = stack.enter_context(Network(self.run_id, ADDRESSES))
            self.cgroups = stack.enter_context(Cgroups(self.run_id))
            self._homes = {name: self.cgroups.add_pod(pod) for name, pod in self.pods.items()}
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End and remove everything."""
        self._stack.close()

    def start_embedded_broker(self) -> None:
        """Start the in-memory broker; its address is then ``brokers``."""
        process, self.brokers = services.start_broker(self.workspace)
        self._watch("embedded broker", process)

    def prepare(self) -> None:
        """Make keys and configuration, and publish the pods' metadata."""
        workspace = self.workspace
        services.run_nsp("keys", "generate", "--out", str(workspace.keys))
        workspace.config.write_text(
            self._config.replace("{brokers}", self.brokers)
            .replace("{metrics}", workspace.stream_metrics)
            .replace("{key}", str(workspace.keys / "enforcement.key.pem"))
        )
        pods = workspace.directory / "pods.yaml"
        pods.write_text(services.inventory(self.pods, ADDRESSES))
        services.run_nsp("inventory", "publish", str(pods), "--brokers", self.brokers)

    def start_stream(self) -> None:
        """Start the stream app (again)."""
        self._watch("stream app", services.start_stream(self.workspace))

    def start_sensor(self) -> None:
        """Start the sensor (again: it then adopts what is pinned)."""
        if not self._unloads:
            self._stack.callback(services.unload, self.pins)
            self._unloads = True
        sensor = services.start_sensor(
            self.workspace, self.brokers, self.cgroups.root, self.pins, ADDRESSES["dns"]
        )
        self._watch("sensor", sensor)

    def wait_until_stream_is_healthy(self) -> None:
        """Wait for the stream app's first good health."""
        address = self.workspace.stream_metrics
        self.wait("the stream app to be healthy", lambda: services.is_healthy(address))

    def wait_until_sensor_is_healthy(self) -> None:
        """Wait for the sensor's first good health."""
        address = self.workspace.sensor_metrics
        self.wait("the sensor to be healthy", lambda: services.is_healthy(address))

    def wait(self, what: str, condition: Any, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait for a condition; fail at once when a process of the scene has died."""
        wait_until(what, condition, timeout_s, self.processes)

    def home(self, host: str) -> Path:
        """The cgroup of a host's workload: its pod's, or outside for hosts that are not ours."""
        return self._homes.get(host, self.cgroups.outside)

    def start(self, host: str, *arguments: str, name: str = "") -> Reader:
        """Start a workload on a host: in its pod's cgroup, or outside for hosts that are not ours.

        Args:
            host: Of the network.
            arguments: Program and arguments.
            name: What it is called, where a host has more than one.
        """
        resolver = self.workspace.directory / "resolv.conf"
        resolver.write_text(f"nameserver {ADDRESSES['dns']}\noptions timeout:1 attempts:3\n")
        home = self.home(host)
        name = name or host
        with self.workspace.log(f"workload-{name}").open("a") as log:
            process = start_workload(self.network.hosts[host], home, resolver, arguments, log)
        self._watch(f"workload {name}", process)
        return Reader(process).start()

    def start_shop(self, observer: Observer) -> Reader:
        """Start name server, shop and customer; return the customer once served."""
        self.start("dns", "dns_server.py", ADDRESSES["dns"], *ZONE)
        self.start("web", "web_service.py", str(SHOP_PORT))
        self.wait("the shop to listen", lambda: observer.listens(self.pods["web"].uid))
        customer = self.start("client", "benign_client.py", "shop.demo.test", str(SHOP_PORT))
        self.wait("the first customer", lambda: bool(customer.lines))
        return customer

    def apply_profile(self) -> str:
        """Put the customer's profile in force; returns what the node answered."""
        profile = Path(__file__).parent / "profile.yaml"
        return services.run_nsp("apply", "-f", str(profile), "--wait", "--brokers", self.brokers)

    def visit(self, attempts: int) -> dict[str, Any]:
        """Have somebody try what the customer's profile allows, and what it does not; what came of it."""
        shop = ("shop.demo.test", str(SHOP_PORT), str(attempts))
        other = (ATTACKER_NAME, ADDRESSES["attacker"], str(FIRST_SHELL_PORT))
        visitor = self.start("client", "visitor.py", *shop, *other, name="visitor")
        self.processes.pop("workload visitor")  # it ends by itself
        self.wait("the visitor to have tried", lambda: visitor.has("tried"))
        return next(line for line in visitor.lines if line.get("event") == "tried")

    def start_attacker(self) -> Reader:
        """Start the attacker's host; it waits for ``go``."""
        shop = f"http://{ADDRESSES['web']}:{SHOP_PORT}"
        attacker = self.start("attacker", "attacker.py", str(FIRST_SHELL_PORT), shop, ATTACKER_NAME)
        self.wait("the attacker to be ready", lambda: attacker.has("ready"))
        return attacker

    def end(self, name: str) -> int:
        """End one process gracefully and return its exit code."""
        return stop(self.processes.pop(name), name)

    def kill(self, name: str) -> None:
        """Kill one process at once (SIGKILL)."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def _watch(self, name: str, process: subprocess.Popen[str]) -> None:
        self.processes[name] = process
        self._stack.callback(self._end_if_running, name, process)

    def _end_if_running(self, name: str, process: subprocess.Popen[str]) -> None:
        self.processes.pop(name, None)
        if process.stdin is not None:
            process.stdin.close()
        if process.poll() is None:
            stop(process, name)
