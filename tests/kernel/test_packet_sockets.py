# SPDX-License-Identifier: Apache-2.0
"""AF_PACKET passes every socket hook; on the interface its packets are stopped, and told."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from sensor.kernel import WORKLOAD_HAS_QUARANTINE, EnforcementValue
from tests.support.wire_lab import ALERT, ENFORCE, RAW_SOCKETS, Host, Wire, datagram

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sensor.kernel import Kernel
    from tests.support.kernel_lab import Cgroup

pytestmark = pytest.mark.kernel
both_ways = pytest.mark.parametrize("wire", [True, False], ids=["tcx", "clsact"], indirect=True)

IPV4 = 0x0800
NO_FLAGS = 0
REFUSED, ALERTED = 1, 2
REASON_QUARANTINED_PROCESS, REASON_QUARANTINED_WORKLOAD, REASON_RAW_SOCKET = 1, 2, 13
FAR_FUTURE_NS = 1 << 62


@pytest.fixture
def wire(shared_kernel: tuple[Kernel, Cgroup, Path], request: pytest.FixtureRequest) -> Iterator[Wire]:
    """A sender with a packet socket and who is to get what it sends."""
    with Wire(*shared_kernel, tcx=getattr(request, "param", True)) as made:
        made.add("target", 10)
        made.add("sender", 20)
        made.attach()
        yield made


class Listener:
    """Counts what reaches UDP port 9 of a host, whoever sends it."""

    def __init__(self, host: Host) -> None:
        code = (
            "import socket, sys\nreceiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            "receiver.bind(('', 9))\nprint('ready', flush=True)\n"
            "while True:\n    print(receiver.recvfrom(100)[1][0], flush=True)\n"
        )
        command = host.command("/usr/bin/python3", "-c", code)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.line() == "ready"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture
def listener(wire: Wire) -> Iterator[Listener]:
    made = Listener(wire.hosts["target"])
    yield made
    made.process.kill()
    made.process.wait()
    assert made.process.stdout is not None
    made.process.stdout.close()


def frames(wire: Wire, source_ip: str | None = None) -> bytes:
    return datagram(wire.hosts["sender"], wire.hosts["target"], source_ip)


@both_ways
def test_a_workload_without_raw_sockets_sends_nothing_by_packet_socket(wire: Wire) -> None:
    sender = wire.hosts["sender"]
    wire.govern(sender, ENFORCE, NO_FLAGS, ruleset=0)
    before = wire.kernel.counters()["packet_socket"]
    assert sender.send(frames(wire), frames(wire), kind=IPV4) == 2
    [first, second] = wire.refusals(2)
    assert (first["verdict"], first["reason"], first["cgroup_id"]) == (
        REFUSED,
        REASON_RAW_SOCKET,
        sender.cgroup.id,
    )
    assert first["tgid"] == second["tgid"] != 0
    assert wire.kernel.counters()["packet_socket"] - before == 2


@both_ways
def test_a_socket_that_bypasses_the_queueing_discipline_is_stopped_at_the_other_end(
    wire: Wire, listener: Listener
) -> None:
    sender, target = wire.hosts["sender"], wire.hosts["target"]
    wire.govern(sender, ENFORCE, NO_FLAGS, ruleset=0)
    sender.send(frames(wire, "10.78.0.99"), kind=IPV4, bypass=True)
    assert [each["reason"] for each in wire.refusals(1)] == [REASON_RAW_SOCKET]
    wire.govern(sender, ENFORCE, NO_FLAGS, ruleset=RAW_SOCKETS)
    sender.send(frames(wire), kind=IPV4, bypass=True)
    assert listener.line() == sender.address
    assert target.slot != sender.slot


def test_under_alert_it_is_told_once_a_socket_and_arrives(wire: Wire, listener: Listener) -> None:
    sender = wire.hosts["sender"]
    wire.govern(sender, ALERT, NO_FLAGS, ruleset=0)
    assert sender.send(frames(wire), frames(wire), kind=IPV4) == 0
    assert [listener.line(), listener.line()] == [sender.address] * 2
    assert [(each["verdict"], each["reason"]) for each in wire.refusals(1)] == [(ALERTED, REASON_RAW_SOCKET)]


def test_with_raw_sockets_in_the_profile_or_without_a_profile_nothing_is_stopped(
    wire: Wire, listener: Listener
) -> None:
    sender = wire.hosts["sender"]
    assert sender.send(frames(wire), kind=IPV4) == 0
    wire.govern(sender, ENFORCE, NO_FLAGS, ruleset=RAW_SOCKETS)
    assert sender.send(frames(wire), kind=IPV4) == 0
    assert [listener.line(), listener.line()] == [sender.address] * 2
    assert not wire.refusals(0)


def test_a_quarantined_workloads_packet_sockets_are_silent(wire: Wire, listener: Listener) -> None:
    sender = wire.hosts["sender"]
    state = wire.kernel.state
    state.set_workload_quarantine(sender.cgroup.id, EnforcementValue(3, FAR_FUTURE_NS))
    state.set_workload_flags(sender.cgroup.id, WORKLOAD_HAS_QUARANTINE)
    try:
        assert sender.send(frames(wire), kind=IPV4) == 1
        sender.send(frames(wire, "10.78.0.99"), kind=IPV4, bypass=True)
        assert [each["reason"] for each in wire.refusals(2)] == [REASON_QUARANTINED_WORKLOAD] * 2
    finally:
        state.set_workload_flags(sender.cgroup.id, 0)
        state.drop_workload_quarantine(sender.cgroup.id)
    assert sender.send(frames(wire), kind=IPV4) == 0
    assert listener.line() == sender.address


SENDER = """
import socket, sys
for line in sys.stdin:
    bypass, frame = line.split()
    sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    if bypass == "1":
        sender.setsockopt(263, 20, 1)
    sender.bind(("eth0", 0x0800))
    try:
        sender.send(bytes.fromhex(frame))
        print("sent", flush=True)
    except OSError:
        print("refused", flush=True)
"""


def test_a_quarantined_processs_packet_sockets_are_silent_and_its_siblings_are_not(
    wire: Wire, listener: Listener
) -> None:
    sender = wire.hosts["sender"]
    process = subprocess.Popen(
        sender.command("/usr/bin/python3", "-c", SENDER),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with process:
            say(process, f"0 {frames(wire).hex()}")
            assert process.stdout.readline().strip() == "sent"
            assert listener.line() == sender.address
            wire.quarantine(process.pid)
            say(process, f"0 {frames(wire, '10.78.0.99').hex()}")
            assert process.stdout.readline().strip() == "refused"
            [refusal] = wire.refusals(1)
            assert (refusal["tgid"], refusal["reason"]) == (process.pid, REASON_QUARANTINED_PROCESS)
            assert sender.send(frames(wire), kind=IPV4) == 0
            assert listener.line() == sender.address
            process.kill()
    finally:
        wire.release()


def test_a_stamped_packet_socket_stays_silent_whoever_meets_its_packets(wire: Wire) -> None:
    sender = wire.hosts["sender"]
    code = (
        "import socket, sys\nsender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n"
        "sender.bind(('eth0', 0x0800))\nprint('ready', flush=True)\nsys.stdin.readline()\n"
    )
    process = subprocess.Popen(
        sender.command("/usr/bin/python3", "-c", code),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        with process:
            assert process.stdout.readline().strip() == "ready"
            wire.quarantine(process.pid)
            assert wire.kernel.state.mark_sockets() == 1
            assert wire.kernel.state.mark_sockets() == 0
            say(process, "end")
    finally:
        wire.release()


def say(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
