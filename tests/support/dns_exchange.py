# SPDX-License-Identifier: Apache-2.0
"""A resolver and its client in one process: sends exactly the bytes it is told, over a loopback of its own.

Run by tests inside a cgroup. Reads one JSON exchange a line ({"family", "transport", "connected",
"question": [hex...], "answer": [hex...]}; over TCP each element is one segment, over UDP one datagram) and
answers with {"cookie"} of the client's socket once every byte has arrived on both sides.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import socket
import struct
import sys
from dataclasses import dataclass
from typing import Final

SERVERS: Final = {4: "127.77.0.53", 6: "::1"}
_CLONE_NEWNET: Final = 0x40000000
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1
_SO_COOKIE: Final = 57
_TIMEOUT_S: Final = 10.0  # nothing leaves loopback: only a dropped packet takes this long


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question and its answer, in pieces."""

    question: tuple[bytes, ...]
    answer: tuple[bytes, ...]
    family: int = 4
    transport: str = "udp"
    connected: bool = True

    def to_json(self) -> str:
        """As a line for the process."""
        return json.dumps(
            {
                "question": [piece.hex() for piece in self.question],
                "answer": [piece.hex() for piece in self.answer],
                "family": self.family,
                "transport": self.transport,
                "connected": self.connected,
            }
        )

    @classmethod
    def from_json(cls, line: str) -> Exchange:
        """From a line of the test."""
        found = json.loads(line)
        found["question"] = tuple(bytes.fromhex(piece) for piece in found["question"])
        found["answer"] = tuple(bytes.fromhex(piece) for piece in found["answer"])
        return cls(**found)


def enter_own_network() -> None:
    """A network namespace with nothing but loopback, so that port 53 is free and nobody hears us."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
    with socket.socket() as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))


def _receive(receiver: socket.socket, piece: bytes, sent_by: str) -> tuple[str, int]:
    data, peer = b"", ("", 0)
    while len(data) < len(piece):
        more, peer = receiver.recvfrom(65536)
        data += more
        if not more or receiver.type == socket.SOCK_DGRAM:
            break
    if data != piece:
        raise RuntimeError(f"{sent_by} sent {piece.hex()}, {data.hex()} arrived")
    return peer


def _over_udp(exchange: Exchange, client: socket.socket, server: socket.socket) -> None:
    address = server.getsockname()
    if exchange.connected:
        client.connect(address)
    peer = ("", 0)
    for piece in exchange.question:
        client.send(piece) if exchange.connected else client.sendto(piece, address)
        peer = _receive(server, piece, "client")
    for piece in exchange.answer:
        server.sendto(piece, peer)
        _receive(client, piece, "server")


def _over_tcp(exchange: Exchange, client: socket.socket, listener: socket.socket) -> None:
    listener.listen()
    client.connect(listener.getsockname())
    server, _ = listener.accept()
    with server:
        for end in (client, server):
            end.settimeout(_TIMEOUT_S)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for sender, receiver, pieces in (
            (client, server, exchange.question),
            (server, client, exchange.answer),
        ):
            for piece in pieces:
                sender.send(piece)
                _receive(receiver, piece, "peer")


def run(exchange: Exchange) -> int:
    """Perform one exchange; returns the client's socket cookie."""
    family = socket.AF_INET if exchange.family == 4 else socket.AF_INET6
    kind = socket.SOCK_DGRAM if exchange.transport == "udp" else socket.SOCK_STREAM
    with socket.socket(family, kind) as client, socket.socket(family, kind) as server:
        for end in (client, server):
            end.settimeout(_TIMEOUT_S)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((SERVERS[exchange.family], 53))
        (_over_udp if kind == socket.SOCK_DGRAM else _over_tcp)(exchange, client, server)
        return int(struct.unpack("Q", client.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8))[0])


def main() -> None:
    """Serve exchanges until the input ends."""
    enter_own_network()
    _reply(pid=os.getpid())
    for line in sys.stdin:
        _reply(cookie=run(Exchange.from_json(line)))


def _reply(**values: int) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
