# SPDX-License-Identifier: Apache-2.0
"""Both ends of connections that say given bytes, in one process: run inside a workload's cgroup.

Input: one JSON command a line on stdin: ``[address, [[expected, [piece, ...]], ...]]``, pieces as hex; each
is a write of its own, without Nagle. Output: one JSON line, for each connection how many bytes arrived. Those
``expected`` to arrive whole are waited for; the others are read when all have been sent, so that what was to
be refused had its time to come through.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time
from pathlib import Path

_WAIT_S = 5.0
_LINGER = struct.pack("ii", 1, 0)
_READ_BYTES = 1 << 20


def _pair(listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    client = socket.socket(listener.family)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.connect(listener.getsockname())
    server, _ = listener.accept()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
    return client, server


def _arrived(server: socket.socket, wanted: int, timeout_s: float) -> int:
    got = 0
    deadline = time.monotonic() + timeout_s
    while got < wanted:
        server.settimeout(max(deadline - time.monotonic(), 0) or 0.0)
        try:
            piece = server.recv(_READ_BYTES)
        except (TimeoutError, BlockingIOError):
            break
        if not piece:
            break
        got += len(piece)
    return got


def converse(address: str, cases: list[tuple[bool, list[str]]]) -> list[int]:
    """Say every case on a connection of its own; returns the bytes that arrived."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family, backlog=64) as listener:
        pairs = []
        for _, pieces in cases:
            client, server = _pair(listener)
            for piece in pieces:
                client.sendall(bytes.fromhex(piece))
            pairs.append((client, server))
        arrived = []
        for (expected, pieces), (client, server) in zip(cases, pairs, strict=True):
            wanted = sum(len(piece) for piece in pieces) // 2
            arrived.append(_arrived(server, wanted, _WAIT_S if expected else 0))
            client.close()
            server.close()
    return arrived


def main() -> None:
    """Enter the cgroup and do as told until stdin ends."""
    Path(sys.argv[1]).write_text("0")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        address, cases = json.loads(line)
        sys.stdout.write(json.dumps(converse(address, cases)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
