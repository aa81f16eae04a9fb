# SPDX-License-Identifier: Apache-2.0
"""Real flows from any address to any other, in a network namespace of their own.

Run as a program: it makes the namespace, gives its loopback every address, and forks. The parent stands for
the rest of the world, the child enters a cgroup and is who is governed. Commands come as JSON lines:
``[way, protocol, remote address, remote port, local port]``; the answer is true when the flow passed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

LOOPBACK: Final = ("127.0.0.1", "::1")
ADDRESSES: Final = ("10.0.0.1", "10.0.0.2", "10.1.2.3", "192.0.2.7", "2001:db8::1", "2001:db8:1::1", "::2")
PORTS: Final = (22, 80, 443, 8080, 8443, 65535)
GOVERNED: Final = {socket.AF_INET: "10.255.0.1", socket.AF_INET6: "2001:db8:ff::1"}
# Where the sockets are that never send: what comes to them is no answer.
SILENT: Final = {socket.AF_INET: "10.255.0.2", socket.AF_INET6: "2001:db8:ff::2"}
_CLONE_NEWNET: Final = 0x40000000
# On the loopback a packet that passes is there before the call that sent it returns.
_PATIENCE_MS: Final = 30
_ECHO: Final = {socket.AF_INET: 8, socket.AF_INET6: 128}
_ICMP: Final = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}


def family_of(address: str) -> socket.AddressFamily:
    """Of an address as text."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def opened(family: int, kind: int, address: str, port: int) -> socket.socket:
    """A socket with a local end, which others may have too."""
    made = socket.socket(family, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if kind == socket.SOCK_STREAM:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    made.setblocking(False)
    made.bind((address, port))
    return made


def connects(made: socket.socket, address: str, port: int) -> bool:
    """Whether a connection is not refused by us; that nobody listens is no refusal."""
    number = made.connect_ex((address, port))
    if number == errno.EINPROGRESS:
        poll = select.poll()
        poll.register(made, select.POLLOUT)
        if not poll.poll(_PATIENCE_MS):
            return False
        number = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number not in {0, errno.ECONNREFUSED, errno.EPERM}:
        raise OSError(number, os.strerror(number), address)
    return number != errno.EPERM


def binds(family: socket.AddressFamily, port: int) -> bool:
    """Whether a bind to a port is not refused."""
    with socket.socket(family, socket.SOCK_STREAM) as made:
        try:
            made.bind((SILENT[family], port))
        except PermissionError:
            return False
    return True


def is_answered(family: socket.AddressFamily, address: str) -> bool:
    """Whether a ping, from a socket that need not be raw, is answered."""
    with socket.socket(family, socket.SOCK_DGRAM, _ICMP[family]) as made:
        made.bind((GOVERNED[family], 0))
        made.setblocking(False)
        try:
            made.sendto(struct.pack(">BBHHH", _ECHO[family], 0, 0, 0, 1) + b"x", (address, 0))
        except PermissionError:
            return False
        try:
            return bool(made.recv(64))
        except BlockingIOError:
            return False


def sends(datagrams: socket.socket, address: str, port: int) -> bool:
    """Whether a datagram may leave."""
    try:
        datagrams.sendto(b"x", (address, port))
    except PermissionError:
        return False
    return True


def receives(datagrams: socket.socket) -> bool:
    """Whether one has come."""
    try:
        return bool(datagrams.recv(16))
    except BlockingIOError:
        return False


class Governed:
    """The child: its sockets are there before any rule is."""

    def __init__(self) -> None:
        self._listeners = {}
        self._datagrams = {}
        self._silent = {}
        for family, address in GOVERNED.items():
            for port in PORTS:
                listener = opened(family, socket.SOCK_STREAM, address, port)
                listener.listen(64)
                self._listeners[family, port] = listener
                self._silent[family, port] = opened(family, socket.SOCK_DGRAM, SILENT[family], port)
                self._datagrams[family, port] = opened(family, socket.SOCK_DGRAM, address, port)
                self._datagrams[family, port].sendto(b"x", (address, 9))

    def obey(self, way: str, address: str, port: int, local_port: int) -> bool:
        """Connect, bind, send, receive, or forget what was accepted."""
        family = family_of(address)
        if way == "tcp-out":
            with contextlib.closing(opened(family, socket.SOCK_STREAM, GOVERNED[family], 0)) as made:
                return connects(made, address, port)
        if way == "tcp-in":
            with contextlib.suppress(BlockingIOError):
                while True:
                    self._listeners[family, local_port].accept()[0].close()
            return True
        if way == "bind":
            return binds(family, local_port)
        if way == "ping":
            return is_answered(family, address)
        datagrams = (self._silent if way == "udp-first" else self._datagrams)[family, local_port]
        return sends(datagrams, address, port) if way == "udp-out" else receives(datagrams)


class World:
    """The parent."""

    def __init__(self, child: Any) -> None:
        self._child = child

    def flow(self, way: str, address: str, port: int, local_port: int) -> bool:
        """Make one flow and say whether it passed."""
        if way in {"tcp-out", "udp-out", "bind", "ping"}:
            return self._tell(way, address, port, local_port)
        family = family_of(address)
        kind = socket.SOCK_STREAM if way == "tcp-in" else socket.SOCK_DGRAM
        with contextlib.closing(opened(family, kind, address, port)) as made:
            if kind == socket.SOCK_DGRAM:
                made.sendto(b"x", ((SILENT if way == "udp-first" else GOVERNED)[family], local_port))
                return self._tell(way, address, port, local_port)
            passed = connects(made, GOVERNED[family], local_port)
            self._tell(way, address, port, local_port)
            return passed

    def _tell(self, *command: object) -> bool:
        self._child.write(json.dumps(command) + "\n")
        self._child.flush()
        return bool(json.loads(self._child.readline()))


def _make_namespace() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for address in (*ADDRESSES, *GOVERNED.values(), *SILENT.values()):
        command = ["ip", "address", "add", address, "dev", "lo"]
        subprocess.run([*command, *(["nodad"] if ":" in address else [])], check=True)
    Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 0")


def _serve(lines: Any, answers: Any, obey: Any) -> None:
    for line in lines:
        answers.write(json.dumps(obey(*json.loads(line))) + "\n")
        answers.flush()


def main() -> None:
    """Fork and serve."""
    _make_namespace()
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        Path(sys.argv[1]).write_text(str(os.getpid()))
        stream = theirs.makefile("rw")
        governed = Governed()
        stream.write("true\n")
        stream.flush()
        _serve(stream, stream, governed.obey)
        return
    theirs.close()
    child = ours.makefile("rw")
    child.readline()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    _serve(sys.stdin, sys.stdout, World(child).flow)


if __name__ == "__main__":
    main()
