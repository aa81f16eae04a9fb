# SPDX-License-Identifier: Apache-2.0
"""Signed orders carried out in the real kernel: the tree is cut, the service above it lives, all is told."""

from __future__ import annotations

import contextlib
import os
import signal
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
from sensor.enforce.status import Reporter
from sensor.enforce.verify import Verifier
from tests.support.fake_enforcement import FakeWorkloads, Recorder, no_profiles
from tests.support.kernel_watch import Actor, Watch, boot_ns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.kernel_lab import Cgroup

NODE = "node"
BOOT = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
KEY = SigningKey.generate()
TRUSTED = VerifyingKeys.from_pems([KEY.public_pem()])


class Enforcement:
    """A sensor's enforcement on the real maps; messages come by call instead of by Kafka."""

    def __init__(self, watch: Watch, workloads: FakeWorkloads) -> None:
        self.watch = watch
        self.recorder = Recorder()
        self.controller = Controller(
            Verifier(TRUSTED, NODE, BOOT, 1),
            Applier(watch.kernel.state, workloads),
            Reporter(NODE, BOOT),
            self.recorder,
            self.recorder,
            SystemClock(),
            profiles=no_profiles(self.recorder, SystemClock()),
        )

    def process(self, tgid: int) -> str:
        key = self.watch.key(tgid)
        return str(ProcessSubject(BOOT, key.tgid, key.start_ns))

    def send(
        self, subject: str, *, generation: int = 1, seconds: float = 600, **changes: Any
    ) -> dict[str, Any]:
        """Send a signed order; returns the last status after it."""
        now = time.time_ns()
        record = {
            "node": NODE, "subject": subject, "generation": generation, "issued_at_ns": now,
            "expires_at_ns": now + int(seconds * 1e9), "quarantined": True, "blocked_destinations": [],
            "alert_id": "", "reason": "", "evidence_boot_ns": 0, **changes,
        }  # fmt: skip
        self.controller.message(enforcement_key(NODE, subject), KEY.sign(encode("Enforcement", record)))
        return self.recorder.statuses[-1] if self.recorder.statuses else {}

    def tick_until(self, outcome: str) -> dict[str, Any]:
        deadline = time.monotonic() + 10
        while True:
            self.controller.tick()
            for status in self.recorder.statuses:
                if status["outcome"] == outcome:
                    return status
            assert time.monotonic() < deadline, f"no {outcome}; there is {self.recorder.outcomes()}"
            time.sleep(0.02)


@pytest.fixture
def workloads() -> FakeWorkloads:
    return FakeWorkloads()


@pytest.fixture
def enforcement(watch: Watch, workloads: FakeWorkloads) -> Enforcement:
    started = Enforcement(watch, workloads)
    started.controller.history_complete()
    return started


@pytest.fixture
def service(watch: Watch) -> Iterator[Actor]:
    with Actor(watch.cgroup) as started:
        yield started


@pytest.fixture
def attacker(watch: Watch) -> Iterator[Actor]:
    with Actor(watch.cgroup) as started:
        yield started


def ask_connect(service: Actor, *path: str, port: int) -> Any:
    """A new connection by a descendant of the service; the errno's name when refused."""
    asked = [part for name in path for part in ("ask", name)]
    name = f"new-{time.monotonic_ns()}"
    service.tell(*asked, "socket", name, socket.AF_INET, socket.SOCK_STREAM)
    return service.tell(*asked, "connect", name, "127.0.0.1", port)


def test_a_shell_tree_is_cut_with_its_open_flow_while_the_service_goes_on_serving(
    enforcement: Enforcement, service: Actor, attacker: Actor
) -> None:
    port, listening = service.listen("server"), attacker.listen("c2")
    shell = service.tell("helper", "shell")
    tool = service.tell("ask", "shell", "helper", "tool")
    service.tell("ask", "shell", "ask", "tool", "socket", "flow", socket.AF_INET, socket.SOCK_STREAM)
    assert service.tell("ask", "shell", "ask", "tool", "connect", "flow", "127.0.0.1", listening) is None
    attacker.tell("accept", "c2", "flow")
    before = boot_ns()

    status = enforcement.send(enforcement.process(shell), generation=77)

    assert (status["outcome"], status["processes"]) == ("APPLIED", 2)
    assert status["sockets"] >= 1
    assert before < status["applied_boot_ns"] < boot_ns()
    state = enforcement.watch.kernel.state
    for tgid in (shell, tool):
        process = state.process(tgid)
        assert process is not None
        assert process.quarantine_root == enforcement.watch.key(shell)
    assert ask_connect(service, "shell", port=listening) == "EPERM"
    assert ask_connect(service, "shell", "tool", port=listening) == "EPERM"
    service.tell("ask", "shell", "ask", "tool", "send", "flow", "secret")
    assert attacker.tell("recv", "flow") == "ETIMEDOUT"
    assert attacker.connect("client", "127.0.0.1", port) is None
    assert service.tell("accept", "server", "client") is None
    assert service.tell("send", "client", "page") == 4
    assert attacker.tell("recv", "client") == "page"

    first = enforcement.tick_until("FIRST_REFUSAL")
    assert status["applied_boot_ns"] < first["first_refused_boot_ns"] < boot_ns()
    assert first["refused_calls"] >= 2
    assert first["refused_packets"] >= 1


def test_who_was_left_behind_by_an_ended_shell_is_cut(enforcement: Enforcement, watch: Watch) -> None:
    # A double fork: the middle process ends at once, the shell when its input does.
    script = "(sleep 60 >/dev/null & echo $!); read end"
    shell = subprocess.Popen(
        watch.cgroup.command("sh", "-c", script), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert shell.stdout is not None
    orphan = int(shell.stdout.readline())
    subject, root = enforcement.process(shell.pid), watch.key(shell.pid)
    shell.communicate()
    assert watch.kernel.state.process(shell.pid) is None
    assert enforcement.send(subject)["processes"] == 1
    process = watch.kernel.state.process(orphan)
    assert process is not None
    assert process.quarantine_root == root
    os.kill(orphan, signal.SIGKILL)


def test_a_tree_that_forks_all_the_time_is_cut_whole(enforcement: Enforcement, watch: Watch) -> None:
    cgroup = type(watch.cgroup)(watch.cgroup.path / "bomb")
    cgroup.path.mkdir()
    script = "while :; do (sleep 0.3 & sleep 0.2 &); done"
    bomb = subprocess.Popen(cgroup.command("sh", "-c", script))
    try:
        members = _members_at_least(cgroup, 20)
        status = enforcement.send(enforcement.process(bomb.pid))
        assert status["outcome"] == "APPLIED"
        assert status["processes"] >= len(members) // 2
        root = watch.key(bomb.pid)
        for _ in range(10):
            enforcement.controller.tick()
            time.sleep(0.02)
            alive = set(_members(cgroup))
            unmarked = [
                tgid
                for tgid, process in watch.kernel.state.processes()
                if tgid in alive and process.quarantine_root != root
            ]
            assert [tgid for tgid in unmarked if tgid in _members(cgroup)] == []
    finally:
        bomb.kill()
        bomb.wait()
        for tgid in _members(cgroup):
            with contextlib.suppress(ProcessLookupError):
                os.kill(tgid, signal.SIGKILL)
        _until_empty(cgroup)


def _members(cgroup: Cgroup) -> list[int]:
    return [int(line) for line in (cgroup.path / "cgroup.procs").read_text().split()]


def _members_at_least(cgroup: Cgroup, number: int) -> list[int]:
    deadline = time.monotonic() + 20
    while len(members := _members(cgroup)) < number:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return members


def _until_empty(cgroup: Cgroup) -> None:
    deadline = time.monotonic() + 10
    while _members(cgroup):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    cgroup.path.rmdir()


def test_freeing_the_inner_tree_keeps_the_outer_one_cut(
    enforcement: Enforcement, service: Actor, attacker: Actor
) -> None:
    port = attacker.listen("c2")
    shell = service.tell("helper", "shell")
    tool = service.tell("ask", "shell", "helper", "tool")
    enforcement.send(enforcement.process(shell), seconds=300)
    enforcement.send(enforcement.process(tool), seconds=600)
    inner = enforcement.process(tool)
    assert enforcement.send(inner, generation=2, quarantined=False)["outcome"] == "ENDED"
    assert ask_connect(service, "shell", "tool", port=port) == "EPERM"
    enforcement.send(enforcement.process(shell), generation=2, quarantined=False)
    assert ask_connect(service, "shell", "tool", port=port) is None
    assert ask_connect(service, "shell", port=port) is None


def test_it_ends_by_itself_and_leaves_nothing_behind(
    enforcement: Enforcement, service: Actor, attacker: Actor
) -> None:
    port = attacker.listen("c2")
    shell = service.tell("helper", "shell")
    enforcement.send(enforcement.process(shell), seconds=1.0)
    root = enforcement.watch.key(shell)
    assert ask_connect(service, "shell", port=port) == "EPERM"
    ended = enforcement.tick_until("ENDED")
    assert (ended["reason"], ended["refused_calls"]) == ("expired", 1)
    assert enforcement.watch.kernel.state.quarantine(root) is None
    process = enforcement.watch.kernel.state.process(shell)
    assert process is not None
    assert process.quarantine_root is None
    assert ask_connect(service, "shell", port=port) is None


def test_a_new_sensor_takes_over_with_the_counters_and_can_lift(
    enforcement: Enforcement, watch: Watch, workloads: FakeWorkloads, service: Actor, attacker: Actor
) -> None:
    port = attacker.listen("c2")
    shell = service.tell("helper", "shell")
    subject = enforcement.process(shell)
    enforcement.send(subject, generation=5)
    assert ask_connect(service, "shell", port=port) == "EPERM"
    new = Enforcement(watch, workloads)
    new.send(subject, generation=5)
    new.controller.history_complete()
    assert new.recorder.outcomes() == ["APPLIED"]
    assert new.tick_until("FIRST_REFUSAL")["refused_calls"] == 1
    new.send(subject, generation=6, quarantined=False)
    assert ask_connect(service, "shell", port=port) is None


def test_a_workload_is_cut_off_one_destination_then_off_all_then_freed(
    enforcement: Enforcement, watch: Watch, workloads: FakeWorkloads, attacker: Actor
) -> None:
    pod = type(watch.cgroup)(watch.cgroup.path / "pod")
    pod.path.mkdir()
    watch.kernel.state.set_workload(pod.id, pod.id)
    workloads.cgroups["pod"] = (pod.id,)
    bad, good = attacker.listen("bad"), attacker.listen("good")
    blocked = [{"address": "127.0.0.1", "port": bad, "protocol": socket.IPPROTO_TCP}]
    with Actor(pod) as member:
        enforcement.send("workload/pod", quarantined=False, blocked_destinations=blocked)
        assert member.connect("a", "127.0.0.1", bad) == "EPERM"
        assert member.connect("b", "127.0.0.1", good) is None
        assert enforcement.tick_until("FIRST_REFUSAL")["refused_calls"] == 1
        enforcement.send("workload/pod", generation=2)
        assert member.connect("c", "127.0.0.1", good) == "EPERM"
        assert list(watch.kernel.state.blocked_destinations()) == []
        enforcement.send("workload/pod", generation=3, quarantined=False)
        assert member.connect("d", "127.0.0.1", bad) is None
        assert watch.kernel.state.workload_flags(pod.id) == 0
