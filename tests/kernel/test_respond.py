# SPDX-License-Identifier: Apache-2.0
"""Whole workloads cut but for DNS and probes, and trees ended by signed orders, in the real kernel."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from schemas.codec import encode
from schemas.signing import SigningKey, VerifyingKeys
from schemas.subject import ProcessSubject, enforcement_key
from sensor.enforce.apply import Applier
from sensor.enforce.clock import SystemClock
from sensor.enforce.controller import Controller
from sensor.enforce.kill import Killer, Protection
from sensor.enforce.signals import SystemSignals
from sensor.enforce.status import Reporter
from sensor.enforce.verify import Verifier
from tests.support.fake_enforcement import FakeWorkloads, Recorder, no_profiles
from tests.support.kernel_watch import Actor, Watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.kernel_lab import Cgroup

NODE = "node"
BOOT = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
KEY = SigningKey.generate()
RESOLVER, ELSEWHERE = "127.0.0.53", "127.0.0.9"
DEADLINE_S = 10


class Sensor:
    """Enforcement on the real maps and on real processes; messages come by call."""

    def __init__(self, watch: Watch, workloads: FakeWorkloads, protection: Protection) -> None:
        self.watch = watch
        self.recorder = Recorder()
        killer = Killer(watch.kernel.state, SystemSignals(), protection, os.getpid())
        self.controller = Controller(
            Verifier(VerifyingKeys.from_pems([KEY.public_pem()]), NODE, BOOT, 1),
            Applier(watch.kernel.state, workloads, killer),
            Reporter(NODE, BOOT),
            self.recorder,
            self.recorder,
            SystemClock(),
            profiles=no_profiles(self.recorder, SystemClock()),
        )
        self.controller.history_complete()

    def process(self, tgid: int) -> str:
        key = self.watch.key(tgid)
        return str(ProcessSubject(BOOT, key.tgid, key.start_ns))

    def send(self, subject: str, generation: int, **changes: Any) -> dict[str, Any]:
        """Send a signed order; returns the last status after it."""
        now = time.time_ns()
        record = {
            "node": NODE, "subject": subject, "generation": generation, "issued_at_ns": now,
            "expires_at_ns": now + 600 * 10**9, "quarantined": True, "blocked_destinations": [],
            "alert_id": "", "reason": "", "evidence_boot_ns": 0, **changes,
        }  # fmt: skip
        self.controller.message(enforcement_key(NODE, subject), KEY.sign(encode("Enforcement", record)))
        return self.recorder.statuses[-1]

    def tick_until_gone(self, cgroup: Cgroup) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while left := (cgroup.path / "cgroup.procs").read_text().split():
            assert time.monotonic() < deadline, f"still there: {left}"
            self.controller.tick()
            time.sleep(0.02)


def flow(network: str, port: int, protocol: int, *, incoming: bool) -> dict[str, Any]:
    return {"network": network, "port": port, "protocol": protocol, "incoming": incoming}


@pytest.fixture
def pod(watch: Watch) -> Iterator[Cgroup]:
    made = type(watch.cgroup)(watch.cgroup.path / "pod")
    made.path.mkdir()
    watch.kernel.state.set_workload(made.id, made.id)
    yield made
    made.remove()


@pytest.fixture
def sensor(watch: Watch, pod: Cgroup) -> Iterator[Sensor]:
    made = Sensor(watch, FakeWorkloads(pod=(pod.id,)), Protection())
    yield made
    made.send("workload/pod", 1000, quarantined=False)


class TestQuarantineOfAPod:
    def test_dns_and_probes_pass_and_nothing_else(self, sensor: Sensor, pod: Cgroup, peer: Actor) -> None:
        peer.tell("socket", "dns", socket.AF_INET, socket.SOCK_DGRAM)
        peer.tell("bind", "dns", RESOLVER, 0)
        dns, listening = int(peer.tell("port", "dns")), peer.listen("c2")
        with Actor(pod) as member:
            web, other = member.listen("web"), member.listen("other")
            assert member.connect("flow", "127.0.0.1", listening) is None
            assert peer.tell("accept", "c2", "flow") is None

            status = sensor.send("workload/pod", 1, allowed=[
                flow(f"{RESOLVER}/32", dns, 17, incoming=False), flow("127.0.0.0/29", web, 6, incoming=True),
            ])  # fmt: skip
            assert status["outcome"] == "APPLIED"

            assert member.connect("question", RESOLVER, dns, kind=socket.SOCK_DGRAM) is None
            assert member.tell("send", "question", "who?") == 4
            assert peer.tell("recv", "dns") == "who?"
            assert peer.tell("sendto", "dns", "me", "127.0.0.1", member.tell("port", "question")) == 2
            assert member.tell("recv", "question") == "me"
            assert peer.connect("probe", "127.0.0.1", web) is None
            assert member.tell("accept", "web", "probe") is None
            assert peer.tell("send", "probe", "GET") == 3
            assert member.tell("recv", "probe") == "GET"
            assert member.tell("send", "probe", "200") == 3
            assert peer.tell("recv", "probe") == "200"

            assert member.connect("tcp", RESOLVER, dns) == "EPERM"
            assert member.connect("more", RESOLVER, dns + 1, kind=socket.SOCK_DGRAM) == "EPERM"
            assert member.connect("out", "127.0.0.1", listening) == "EPERM"
            # The port that probes come in by is no way out: not as a remote one.
            assert member.connect("self", "127.0.0.1", web) == "EPERM"
            assert member.tell("send", "flow", "x") == 1
            assert peer.tell("recv", "flow") == "ETIMEDOUT"
            assert peer.connect("closed", "127.0.0.1", other) == "ETIMEDOUT"
            peer.tell("socket", "stranger", socket.AF_INET, socket.SOCK_STREAM)
            peer.tell("bind", "stranger", ELSEWHERE, 0)
            assert peer.tell("connect", "stranger", "127.0.0.1", web) == "ETIMEDOUT"

    def test_an_order_that_allows_less_counts_at_once_and_a_lift_frees(
        self, sensor: Sensor, pod: Cgroup, peer: Actor
    ) -> None:
        state = sensor.watch.kernel.state
        with Actor(pod) as member:
            web = member.listen("web")
            allowed = [flow("127.0.0.1/32", web, 6, incoming=True)]
            sensor.send("workload/pod", 1, allowed=allowed)
            assert peer.connect("first", "127.0.0.1", web) is None
            assert [each.port for each in state.allowed_flows()] == [web]
            sensor.send("workload/pod", 2)
            assert peer.connect("second", "127.0.0.1", web) == "ETIMEDOUT"
            assert list(state.allowed_flows()) == []
            sensor.send("workload/pod", 3, allowed=allowed)
            assert peer.connect("third", "127.0.0.1", web) is None
            sensor.send("workload/pod", 4, quarantined=False)
            assert (list(state.allowed_flows()), state.workload_flags(pod.id)) == ([], 0)
            assert member.connect("out", "127.0.0.1", web) is None

    def test_what_an_earlier_order_allowed_is_void_even_before_it_is_removed(
        self, sensor: Sensor, pod: Cgroup, peer: Actor
    ) -> None:
        state = sensor.watch.kernel.state
        with Actor(pod) as member:
            web = member.listen("web")
            sensor.send("workload/pod", 5, allowed=[flow("127.0.0.1/32", web, 6, incoming=True)])
            (key,) = state.allowed_flows()
            state.allow_flow(key, 4)
            assert peer.connect("old", "127.0.0.1", web) == "ETIMEDOUT"
            state.allow_flow(key, 6)
            assert peer.connect("newer", "127.0.0.1", web) is None


def shells(cgroup: Cgroup) -> subprocess.Popen[str]:
    """A shell with a child and an orphan; says ready."""
    script = "(sleep 600 >/dev/null &) ; sleep 600 >/dev/null & echo ready; wait"
    started = subprocess.Popen(cgroup.command("sh", "-c", script), stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    return started


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    with process:
        yield process
        process.kill()


class TestKill:
    def test_the_tree_is_ended_with_its_orphans_and_the_service_lives(
        self, sensor: Sensor, pod: Cgroup, peer: Actor
    ) -> None:
        with ended(shells(pod)) as shell:
            status = sensor.send(sensor.process(shell.pid), 1, killed=True)
            assert (status["outcome"], status["kill_refused"]) == ("APPLIED", "")
            assert status["killed"] >= 2
            sensor.tick_until_gone(pod)
            assert shell.wait(DEADLINE_S) == -9
        assert peer.tell("ready") == peer.tgid

    def test_a_tree_that_forks_all_the_time_is_ended_whole(self, sensor: Sensor, pod: Cgroup) -> None:
        script = "while :; do (sleep 0.3 & sleep 0.2 &); done"
        bomb = subprocess.Popen(pod.command("sh", "-c", script), text=True)
        with ended(bomb):
            deadline = time.monotonic() + DEADLINE_S
            while len((pod.path / "cgroup.procs").read_text().split()) < 10:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            sensor.send(sensor.process(bomb.pid), 1, killed=True)
            sensor.tick_until_gone(pod)

    def test_another_start_is_another_process(self, sensor: Sensor, pod: Cgroup) -> None:
        with ended(shells(pod)) as shell:
            key = sensor.watch.key(shell.pid)
            other = str(ProcessSubject(BOOT, key.tgid, key.start_ns - 1))
            status = sensor.send(other, 1, killed=True)
            assert status["killed"] == 0
            assert status["kill_refused"].startswith("gone")
            assert shell.poll() is None

    def test_one_protected_executable_in_the_tree_and_nobody_is_ended(
        self, watch: Watch, pod: Cgroup
    ) -> None:
        sensor = Sensor(watch, FakeWorkloads(), Protection(executables=("*/sleep",)))
        with ended(shells(pod)) as shell:
            status = sensor.send(sensor.process(shell.pid), 1, killed=True)
            assert status["killed"] == 0
            assert "sleep (process " in status["kill_refused"]
            assert shell.poll() is None
            process = watch.kernel.state.process(shell.pid)
            assert process is not None
            assert process.quarantine_root == watch.key(shell.pid)

    def test_the_sensor_and_where_it_came_from_are_refused(self, sensor: Sensor) -> None:
        signals = SystemSignals()
        for tgid in (os.getpid(), os.getppid(), 1):
            facts = signals.facts(tgid)
            assert facts is not None
            start_ns = facts.start_ticks * (10**9 // os.sysconf("SC_CLK_TCK"))
            status = sensor.send(str(ProcessSubject(BOOT, tgid, start_ns)), 1, killed=True)
            assert status["outcome"] == "REFUSED"
            assert status["reason"].startswith(f"protected: process {tgid} is")


def test_a_kernel_thread_is_known_as_one() -> None:
    facts = SystemSignals().facts(2)
    if facts is None or facts.executable:
        pytest.skip("process 2 is no kernel thread here: this is a process namespace of its own")
    assert facts.kernel_thread
