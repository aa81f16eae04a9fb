# SPDX-License-Identifier: Apache-2.0
"""Profiles by address, port, program and socket type, on this kernel's real sockets.

Input: a started kernel part whose events nobody else reads meanwhile. Output: a line a step; SmokeError at
the first that fails. Addresses of the loopback stand for other hosts: these policies govern it too.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sensor.policy import layout
from sensor.publish.layout import CONNECT, PACKET_REFUSED
from tests.kernels.outcome import check, expect
from tests.kernels.workload import Workload, pod_below, received, workload
from tests.support.profile_lab import ANY_ADDRESS, TCP, ProfileLab, network, traffic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.kernel_lab import Cgroup
    from tests.support.kernel_watch import Watch

_RAW_SOCKET: Final = 21
_HERE: Final = "127.0.0.1"
_THERE: Final = "127.0.0.2"
_FAR: Final = "127.9.0.1"
_OPENING, _CUTTING, _UNKNOWN = 41, 42, 43  # generations, to tell reports apart
_EVERYTHING: Final = network(traffic(*ANY_ADDRESS), traffic(*ANY_ADDRESS), raw_sockets=True)
_CONNECTING: Final = """
import socket, sys
with socket.socket() as client:
    print(client.connect_ex((sys.argv[1], int(sys.argv[2]))))
"""
_EPERM: Final = "1"


def _only(*cidrs: str, **given: Any) -> dict[str, Any]:
    """Out to these alone, in from anybody."""
    return network(traffic(*cidrs, **given), traffic(*ANY_ADDRESS))


def check_addresses_and_ports(made: Workload) -> None:
    """One network and port is reached; another address, port or family is EPERM."""
    port = made.peer.listen("listed")
    other = made.peer.listen("other")
    for command in (("socket", "far", socket.AF_INET, socket.SOCK_STREAM), ("bind", "far", _FAR, port)):
        made.peer.tell(*command)
    expect(made.peer.tell("listen", "far"), None, "profile: the same port at another address")
    made.lab.govern(made.slot, _only("127.0.0.0/24", ports=[(TCP, port, port)]), generation=_OPENING)
    expect(made.actor.connect("a", _HERE, port), None, "profile: allowed CIDR and port connect")
    expect(made.actor.connect("b", _FAR, port), "EPERM", "profile: another address is EPERM")
    expect(made.actor.connect("c", _HERE, other), "EPERM", "profile: another port is EPERM")
    expect(made.actor.connect("d", "::1", port), "EPERM", "profile: another family is EPERM")
    datagram = made.actor.connect("e", _HERE, port, kind=socket.SOCK_DGRAM)
    expect(datagram, "EPERM", "profile: another protocol is EPERM")
    wanted = [layout.REASON_ADDRESS, layout.REASON_L4_PROTOCOL] * 2
    expect(made.reasons(CONNECT, _OPENING), wanted, "profile: each refusal told with its reason")


def check_raw_sockets(made: Workload) -> None:
    """A raw socket needs a word of its own in the profile."""
    made.lab.govern(made.slot, network(traffic(*ANY_ADDRESS), traffic(*ANY_ADDRESS)), generation=_OPENING)
    raw = socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP
    expect(made.actor.tell("socket", "raw", *raw), "EPERM", "profile: raw socket is EPERM")
    expect(made.reasons(_RAW_SOCKET, _OPENING), [layout.REASON_RAW_SOCKET], "profile: raw socket told")
    made.lab.govern(made.slot, _EVERYTHING)
    expect(made.actor.tell("socket", "raw", *raw), None, "profile: raw socket where it is allowed")


def check_update(made: Workload) -> None:
    """An update cuts an open flow that it no longer allows, and no other."""
    actor, peer = made.actor, made.peer
    made.lab.govern(made.slot, _EVERYTHING)
    for name, address in (("kept", _HERE), ("cut", _THERE)):
        port = peer.listen(f"{name}-server", address)
        actor.connect(name, address, port)
        peer.tell("accept", f"{name}-server", name)
        actor.tell("send", name, "one")
        expect(received(peer, "recv", name), "one", f"update: flow to {address} open")
    made.lab.govern(made.slot, _only(f"{_HERE}/32"), generation=_CUTTING)
    actor.tell("send", "kept", "two")
    expect(received(peer, "recv", "kept"), "two", "update: the allowed flow goes on")
    actor.tell("send", "cut", "two")
    expect(peer.tell("recv", "cut"), "ETIMEDOUT", "update: nothing more arrives on the other")
    told = made.reasons(PACKET_REFUSED, _CUTTING)
    check(layout.REASON_ADDRESS in told, "update: the cut is told")
    made.lab.govern(made.slot, _EVERYTHING)
    expect(received(peer, "recv", "cut"), "two", "update: allowed again, it goes on")


def _outcome(pod: Cgroup, python: str, port: int) -> str:
    command = pod.command(python, "-c", _CONNECTING, _HERE, str(port))
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def check_programs(made: Workload) -> None:
    """A program has rules of its own, by the path it really has."""
    python = str(Path(sys.executable).resolve())
    port = made.peer.listen("programs")
    with tempfile.TemporaryDirectory() as directory:
        tool = f"{directory}/tool"
        shutil.copy(python, tool)
        program = made.lab.program(tool)
        near, far = made.lab.ruleset(_only(f"{_HERE}/32")), made.lab.ruleset(_only(f"{_THERE}/32"))
        made.lab.switch(made.slot, made.lab.policy([far], programs={(program, 0): [near]}))
        expect(_outcome(made.pod, tool, port), "0", "program: the one with a rule connects")
        expect(_outcome(made.pod, python, port), _EPERM, "program: the same file at another path is EPERM")
        Path(directory, "link").symlink_to(tool)
        linked = _outcome(made.pod, f"{directory}/link", port)
        expect(linked, "0", "program: through a link, it is the one")


@contextlib.contextmanager
def _unknown_refused(lab: ProfileLab) -> Iterator[None]:
    flags = layout.POLICY_LOOPBACK | layout.POLICY_UNKNOWN_WORKLOAD
    lab.switch(layout.SLOT_UNKNOWN, lab.policy([], flags=flags, generation=_UNKNOWN))
    try:
        yield
    finally:
        lab.maps.set_policy_slot(layout.SLOT_UNKNOWN, 0)


def check_unknown_workload(watch: Watch, lab: ProfileLab, port: int) -> None:
    """A workload of which nothing is known yet reaches nobody, until it is known."""
    python = str(Path(sys.executable).resolve())
    with pod_below(watch) as guarded, _unknown_refused(lab):
        watch.kernel.state.set_workload(guarded.id, 0, layout.SLOT_UNKNOWN)
        new = guarded.path / "new"
        new.mkdir()
        pod = type(guarded)(new)
        expect(_outcome(pod, python, port), _EPERM, "unknown workload: EPERM from its first process on")
        told = {seen["reason"] for seen in watch.events(CONNECT) if seen["generation"] == _UNKNOWN}
        expect(told, {layout.REASON_UNKNOWN_WORKLOAD}, "unknown workload: told as such")
        lab.govern(lab.slot_for(pod.id), _only(f"{_HERE}/32"))
        expect(_outcome(pod, python, port), "0", "unknown workload: once known, its own profile decides")


def check_profiles(watch: Watch) -> None:
    """All of them."""
    lab = ProfileLab(watch.kernel)
    for step in (check_addresses_and_ports, check_raw_sockets, check_update, check_programs):
        with workload(watch, lab) as made:
            step(made)
    with workload(watch, lab) as made:
        check_unknown_workload(watch, lab, made.peer.listen("server"))
