# SPDX-License-Identifier: Apache-2.0
"""A DNS server over UDP for the network namespace of another process; knows the addresses it is given.

Run as ``python -m tests.kernels.name_server TGID ADDRESS NAME=IPV4...``. Says "ready" once it listens and
answers until it is killed; a name it does not know does not exist.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from typing import TYPE_CHECKING, Final

from tests.support.dns_messages import HEADER_BYTES, NXDOMAIN, RESPONSE, TO_QUESTION, A, message, record

if TYPE_CHECKING:
    from collections.abc import Mapping

_CLONE_NEWNET: Final = 0x40000000
_DATAGRAM_BYTES: Final = 512  # RFC 1035: what a question over UDP may have


def asked_name(question: bytes) -> str:
    """The name of the only question, in lower case."""
    labels: list[str] = []
    at = HEADER_BYTES
    while length := question[at]:
        labels.append(question[at + 1 : at + 1 + length].decode("ascii").lower())
        at += 1 + length
    return ".".join(labels)


def answer(question: bytes, addresses: Mapping[str, str]) -> bytes:
    """The address, or that there is no such name."""
    name = asked_name(question)
    transaction = int.from_bytes(question[:2], "big")
    if name not in addresses:
        return message(name, flags=RESPONSE | NXDOMAIN, transaction=transaction)
    records = (record(TO_QUESTION, A, socket.inet_aton(addresses[name])),)
    return message(name, records, transaction=transaction)


def join_network(tgid: int) -> None:
    """Enter the network namespace of a process."""
    descriptor = os.open(f"/proc/{tgid}/ns/net", os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(descriptor)


def main() -> None:
    """Serve."""
    tgid, listening, *names = sys.argv[1:]
    addresses = dict(each.split("=") for each in names)
    join_network(int(tgid))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((listening, 53))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            question, client = server.recvfrom(_DATAGRAM_BYTES)
            server.sendto(answer(question, addresses), client)


if __name__ == "__main__":
    main()
