# SPDX-License-Identifier: Apache-2.0
"""The probe: a short-lived child that does what the sensor must see, and one thing that must be refused.

Run by path, without site packages, as nothing but the standard library is needed: ``join`` enters the cgroup
and a network namespace of its own and becomes the same program with ``run``, which is the exec to be seen.
There it is its own server: nobody else is on that loopback, no port of the node is taken, no packet leaves.

Output: a line for each part on standard output: name, ``ok``, ``passed`` (what must be refused was not) or
``failed``, and words. Failure: a line ``cannot`` with the reason. It ends with the sensor that started it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import socket
import struct
import sys
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# Everything is on one loopback: a second is already a stopped machine.
_TIMEOUT_S: Final = 2.0
_PR_SET_PDEATHSIG: Final = 1
_CLONE_NEWNET: Final = 0x40000000
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1
_ADDRESS: Final = "127.0.0.1"
_DNS_PORT: Final = 53
_TRANSACTION: Final = 0x4E53
_RESET: Final = struct.pack("ii", 1, 0)
_MESSAGE_BYTES: Final = 512


def join(procs: str, parent: int, arguments: list[str]) -> None:
    """Enter cgroup and namespace, then exec this program again, which does not return.

    Args:
        procs: ``cgroup.procs`` of the probe's cgroup.
        parent: The sensor's process id.
        arguments: Of the program that begins.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return  # the sensor ended before that was asked for
    with open(procs, "w") as file:  # noqa: PTH123 - pathlib would double what this imports
        file.write("0")
    if libc.unshare(_CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "unshare")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP))
    os.execv(sys.executable, [sys.executable, "-I", "-S", __file__, "run", *arguments])  # noqa: S606 - no shell


def tell(part: str, outcome: str, words: str = "") -> None:
    """A line of the result."""
    sys.stdout.write(f"{part}\t{outcome}\t{words}\n")


def run(name: str, passing: int, refused: int) -> None:
    """Do all of it.

    Args:
        name: The name to ask for; it carries the nonce.
        passing: Port to which a connection must pass,
        refused: and to which it must not.
    """
    tell("exec", "ok")
    _attempt(("connect", "close"), partial(_connect, passing))
    _be_refused(refused)
    _attempt(("dns-udp-question", "dns-udp-answer"), partial(_ask_by_datagram, name))
    _attempt(("dns-tcp-question", "dns-tcp-answer"), partial(_ask_by_stream, name))
    tell("exit", "ok")


def _attempt(parts: tuple[str, ...], do: Callable[[], None]) -> None:
    outcome, words = "ok", ""
    try:
        do()
    except OSError as error:
        outcome, words = "failed", str(error)
    for part in parts:
        tell(part, outcome, words)


def _listen(port: int) -> socket.socket:
    server = socket.create_server((_ADDRESS, port))
    server.settimeout(_TIMEOUT_S)
    return server


def _client(kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    client = socket.socket(socket.AF_INET, kind)
    client.settimeout(_TIMEOUT_S)
    return client


def _pair(server: socket.socket, client: socket.socket, port: int) -> socket.socket:
    """Connect the two; the server's end."""
    client.connect((_ADDRESS, port))
    served, _ = server.accept()
    served.settimeout(_TIMEOUT_S)
    # A reset closes within the call: the event is there before this process ends.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    return served


def _connect(port: int) -> None:
    with _listen(port) as server, _client() as client, _pair(server, client, port) as served:
        client.sendall(b"?")
        _exactly(served, 1)
        served.sendall(b"!")
        _exactly(client, 1)


def _be_refused(port: int) -> None:
    # Somebody listens: what is not refused by the kernel programs passes.
    with _listen(port), _client() as client:
        try:
            client.connect((_ADDRESS, port))
        except OSError as error:
            refused = error.errno == errno.EPERM
            tell("refusal", "ok" if refused else "failed", "" if refused else str(error))
        else:
            tell("refusal", "passed", "a connection that must be refused was not")


def _ask_by_datagram(name: str) -> None:
    with _client(socket.SOCK_DGRAM) as server, _client(socket.SOCK_DGRAM) as client:
        server.bind((_ADDRESS, _DNS_PORT))
        client.sendto(_question(name), (_ADDRESS, _DNS_PORT))
        asked, who = server.recvfrom(_MESSAGE_BYTES)
        server.sendto(_answer(asked), who)
        client.recvfrom(_MESSAGE_BYTES)


def _ask_by_stream(name: str) -> None:
    with _listen(_DNS_PORT) as server, _client() as client, _pair(server, client, _DNS_PORT) as served:
        client.sendall(_framed(_question(name)))
        served.sendall(_framed(_answer(_message(served))))
        _message(client)


def _question(name: str) -> bytes:
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
    return struct.pack("!6H", _TRANSACTION, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 1, 1)


def _answer(question: bytes) -> bytes:
    header = struct.pack("!6H", _TRANSACTION, 0x8180, 1, 1, 0, 0)
    record = struct.pack("!3HIH", 0xC00C, 1, 1, 0, 4) + socket.inet_aton(_ADDRESS)
    return header + question[len(header) :] + record


def _framed(message: bytes) -> bytes:
    return struct.pack("!H", len(message)) + message


def _message(stream: socket.socket) -> bytes:
    (length,) = struct.unpack("!H", _exactly(stream, 2))
    return _exactly(stream, length)


def _exactly(stream: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = stream.recv(count - len(data))
        if not more:
            raise ConnectionResetError(errno.ECONNRESET, "the other end closed")
        data += more
    return data


def main(arguments: list[str]) -> int:
    """``join PROCS PARENT NONCE NAME PASSING REFUSED`` or ``run NONCE NAME PASSING REFUSED``."""
    try:
        if arguments[0] == "join":
            join(arguments[1], int(arguments[2]), arguments[3:])
        else:
            run(arguments[2], int(arguments[3]), int(arguments[4]))
    except OSError as error:
        tell("cannot", "failed", str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
