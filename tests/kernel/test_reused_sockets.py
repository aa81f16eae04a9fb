# SPDX-License-Identifier: Apache-2.0
"""Ways around a profile: a socket that was something else before, and bytes that its peer does not read.

A socket can be disconnected (a connect to AF_UNSPEC) and used again, by another program too.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.support.kernel_lab import Cgroup
from tests.support.kernel_watch import Actor
from tests.support.payload_lab import client_hello
from tests.support.profile_lab import ANY_ADDRESS, ProfileLab, network, traffic
from tests.support.profiles import application

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.kernel_watch import Watch

pytestmark = pytest.mark.kernel

PYTHON: Final = str(Path(sys.executable).resolve())
HERE: Final = "127.0.0.1"
REQUESTS: Final = application("HTTP", http=[{"method": "GET", "uri": "/ok"}])
NAMES: Final = application("HTTPS", sni=["good.example"])
APPLICATION_DATA: Final = bytes.fromhex("170303000100")

BEGIN: Final = """
import ctypes, os, socket, sys
there = "127.0.0.1", int(sys.argv[1])
def disconnect(s):
    assert ctypes.CDLL(None).connect(s.fileno(), bytes(16), 16) == 0
"""
END: Final = "\ns.settimeout(0.3)\ntry: s.recv(1)\nexcept OSError: pass\n"


@pytest.fixture(scope="module")
def lab(watch: Watch) -> ProfileLab:
    return ProfileLab(watch.kernel)


@pytest.fixture
def pod(watch: Watch) -> Iterator[Cgroup]:
    path = watch.cgroup.path / "reused"
    path.mkdir()
    yield Cgroup(path)
    Cgroup(path).remove()


def outcome(pod: Cgroup, program: str, code: str, *arguments: str) -> str:
    command = pod.command(program, "-c", BEGIN + code, *arguments)
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def govern(lab: ProfileLab, pod: Cgroup, l7: dict[str, Any]) -> None:
    rules = network(traffic(*ANY_ADDRESS, l7=l7), traffic(*ANY_ADDRESS))
    lab.govern(lab.slot_for(pod.id), rules)


def what_came(peer: Actor, listener: str, connections: int = 1) -> Any:
    """What the last of so many connections brought."""
    for _ in range(connections):
        assert peer.tell("accept", listener, "accepted") is None
    return peer.tell("recv", "accepted")


def test_another_program_cannot_connect_again_with_the_socket_of_a_trusted_one(
    lab: ProfileLab, pod: Cgroup, peer: Actor, tmp_path: Path
) -> None:
    trusted = tmp_path / "trusted"
    shutil.copy(PYTHON, trusted)
    rules = lab.ruleset(network(traffic(f"{HERE}/32")))
    policy = lab.policy([], programs={(lab.program(str(trusted)), 0): [rules]})
    lab.switch(lab.slot_for(pod.id), policy)
    heir = """
s = socket.socket(fileno=int(sys.argv[2]))
try:
    s.connect(there) if s.type == socket.SOCK_STREAM else s.sendto(b"x", there)
    print("passed")
except PermissionError:
    print("EPERM")
"""
    code = f"""
s = socket.socket(type=int(sys.argv[3]))
s.connect(there) if s.type == socket.SOCK_STREAM else s.sendto(b"x", there)
disconnect(s)
s.set_inheritable(True)
os.execv("{PYTHON}", ["x", "-c", sys.argv[2], sys.argv[1], str(s.fileno())])
"""
    port = str(peer.listen("again"))
    for kind in ("1", "2"):  # TCP, UDP
        assert outcome(pod, str(trusted), code, port, BEGIN + heir, kind) == "EPERM"


def test_what_one_connection_said_does_not_speak_for_the_next(
    lab: ProfileLab, pod: Cgroup, peer: Actor
) -> None:
    govern(lab, pod, NAMES)
    code = f"""
s = socket.create_connection(there)
s.sendall(bytes.fromhex(sys.argv[2]))
disconnect(s)
s.connect(there)
s.send(b"SSH-2.0-x\\r\\n")
print("sent")
{END}"""
    hello = client_hello("good.example") + APPLICATION_DATA
    assert outcome(pod, PYTHON, code, str(peer.listen("second")), hello.hex()) == "sent"
    assert what_came(peer, "second", connections=2) != "SSH-2.0-x\r\n"


def test_requests_that_come_from_port_53_are_no_dns(lab: ProfileLab, pod: Cgroup, peer: Actor) -> None:
    rules = network(traffic(*ANY_ADDRESS), traffic(*ANY_ADDRESS, l7=REQUESTS))
    lab.govern(lab.slot_for(pod.id), rules)
    with Actor(pod) as server:
        port = server.listen("server")
        peer.tell("socket", "client", socket.AF_INET, socket.SOCK_STREAM)
        peer.tell("option", "client", socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        assert peer.tell("bind", "client", "127.53.0.53", 53) is None
        assert peer.tell("connect", "client", HERE, port) is None
        assert server.tell("accept", "server", "accepted") is None
        peer.tell("send", "client", "GET /no HTTP/1.1\r\nHost: x\r\n\r\n")
        assert server.tell("recv", "accepted") == "ETIMEDOUT"
        peer.tell("close", "client")


def test_requests_of_a_socket_that_was_a_listener_are_read(lab: ProfileLab, pod: Cgroup, peer: Actor) -> None:
    govern(lab, pod, REQUESTS)
    code = f"""
s = socket.socket()
s.listen()
disconnect(s)
s.connect(there)
s.send(b"GET /no HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
print("sent")
{END}"""
    assert outcome(pod, PYTHON, code, str(peer.listen("former"))) == "sent"
    assert "GET" not in what_came(peer, "former")


def test_urgent_bytes_cannot_make_one_request_of_another(lab: ProfileLab, pod: Cgroup, peer: Actor) -> None:
    govern(lab, pod, REQUESTS)
    code = f"""
s = socket.create_connection(there)
s.send(b"GET /o", socket.MSG_MORE)
s.send(b"k", socket.MSG_OOB)  # a server that does not ask for it reads on behind it
s.send(b" HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n\\r\\n")
print("sent")
{END}"""
    assert outcome(pod, PYTHON, code, str(peer.listen("urgent"))) == "sent"
    assert what_came(peer, "urgent") != "GET /o HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    assert peer.tell("recv", "accepted") != " HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
