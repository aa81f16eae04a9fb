# SPDX-License-Identifier: Apache-2.0
"""A name server for the demonstration's zone: A records, one CNAME, NXDOMAIN for the rest.

Usage: dns_server.py ADDRESS NAME=ADDRESS|NAME=@TARGET ...   (UDP port 53)
"""

from __future__ import annotations

import socket
import struct
import sys

TTL_S = 30
TYPE_A, TYPE_CNAME, CLASS_IN = 1, 5, 1
RCODE_NXDOMAIN = 3
FLAGS_ANSWER = 0x8580  # response, authoritative, recursion desired and available


def encode_name(name: str) -> bytes:
    """Return the uncompressed wire form of a host name."""
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def question_name(message: bytes) -> tuple[str, int]:
    """Return the name asked and the offset after the question, without following pointers."""
    labels, offset = [], 12
    while message[offset]:
        length = message[offset]
        labels.append(message[offset + 1 : offset + 1 + length].decode("ascii", "replace").lower())
        offset += 1 + length
    return ".".join(labels), offset + 5


def answer(message: bytes, zone: dict[str, str]) -> bytes:
    """Return the response to one question."""
    name, end = question_name(message)
    question_type = struct.unpack_from("!H", message, end - 4)[0]
    records = []
    owner = name
    while owner in zone and zone[owner].startswith("@"):
        target = zone[owner][1:]
        data = encode_name(target)
        records.append(
            encode_name(owner) + struct.pack("!HHIH", TYPE_CNAME, CLASS_IN, TTL_S, len(data)) + data
        )
        owner = target
    if owner in zone and question_type == TYPE_A:
        data = socket.inet_aton(zone[owner])
        records.append(encode_name(owner) + struct.pack("!HHIH", TYPE_A, CLASS_IN, TTL_S, 4) + data)
    rcode = 0 if owner in zone else RCODE_NXDOMAIN
    header = message[:2] + struct.pack("!HHHHH", FLAGS_ANSWER | rcode, 1, len(records), 0, 0)
    return header + message[12:end] + b"".join(records)


def main() -> None:
    """Answer until killed; a message that cannot be read is ignored."""
    zone = dict(item.split("=", 1) for item in sys.argv[2:])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((sys.argv[1], 53))
        while True:
            message, peer = server.recvfrom(4096)
            try:
                response = answer(message, zone)
            except (IndexError, struct.error):
                continue
            server.sendto(response, peer)


if __name__ == "__main__":
    main()
