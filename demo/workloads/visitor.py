# SPDX-License-Identifier: Apache-2.0
"""Somebody in the customer's pod who tries what its profile allows and what it does not.

Asks for the shop's name and connects at once to what was answered, again and again: a rule that came after
the answer would refuse some of them. Then asks for another name, and dials another host by its address.
Prints one JSON line.

Usage: visitor.py NAME PORT COUNT OTHER_NAME OTHER_ADDRESS OTHER_PORT
"""

from __future__ import annotations

import errno
import json
import socket
import struct
import sys

TIMEOUT_S = 3.0
TYPE_A_CLASS_IN = struct.pack("!HH", 1, 1)


def resolver() -> tuple[str, int]:
    """The pod's name server."""
    with open("/etc/resolv.conf", encoding="ascii") as file:  # noqa: PTH123 - as in any small program
        return next(line.split()[1] for line in file if line.startswith("nameserver")), 53


def question(name: str, number: int) -> bytes:
    """A DNS question for a name's address."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", number & 0xFFFF, 0x0100, 1, 0, 0, 0) + labels + b"\0" + TYPE_A_CLASS_IN


def resolve(name: str, number: int) -> str:
    """Ask for a name; the last four bytes of the answer are its address here."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(TIMEOUT_S)
        asking.sendto(question(name, number), resolver())
        return socket.inet_ntoa(asking.recv(512)[-4:])


def connect(address: str, port: int) -> None:
    """Open a connection, ask for a page and read it."""
    with socket.socket() as calling:
        calling.settimeout(TIMEOUT_S)
        calling.connect((address, port))
        calling.sendall(b"GET / HTTP/1.0\r\n\r\n")
        while calling.recv(4096):
            pass


def outcome(attempt: object, *arguments: object) -> str:
    """What an attempt ended in: ``reached``, or the name of the errno."""
    try:
        attempt(*arguments)  # type: ignore[operator]  # one of the functions above
    except TimeoutError:
        return "ETIMEDOUT"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "reached"


def main() -> None:
    """Try it all and say what came of it."""
    name, port, count, other_name, other_address, other_port = sys.argv[1:7]
    reached = wrongly_refused = 0
    for number in range(int(count)):
        said = outcome(lambda n=number: connect(resolve(name, n), int(port)))
        reached += said == "reached"
        wrongly_refused += said == "EPERM"
    result = {
        "event": "tried",
        "resolved_and_reached": reached,
        "wrongly_refused": wrongly_refused,
        "other_name": outcome(resolve, other_name, 0),
        "other_address": outcome(connect, other_address, int(other_port)),
    }
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
