# SPDX-License-Identifier: Apache-2.0
"""Sends mutated questions and answers through real sockets of a governed process, and says what became.

Run by tests inside a governed cgroup, with a network of its own. Reads a seed and a number a line; answers
with how many questions passed, those that were treated otherwise than the oracle says (hex), and the
addresses that the answers should have taught (hex).
"""

from __future__ import annotations

import json
import random
import socket
import sys
from typing import Final

from tests.support import dns_messages as dns
from tests.support.dns_exchange import enter_own_network
from tests.support.dns_messages import TO_QUESTION, message, mutated, name, record
from tests.support.dns_oracle import addresses_to_learn, question_passes

RESOLVER: Final = "127.7.0.53"
NAME: Final = "www.example.com"
NAMES: Final = ("example.com",)
SUFFIXES: Final = ("example.com",)
ASKED: Final = (b"www", b"example", b"com")
TRANSACTION: Final = 0x1234
_TIMEOUT_S: Final = 5.0
QUESTION: Final = message(NAME, flags=dns.QUERY)
_FIRST = 12 + len(name(NAME)) + 4 + 2 + 10  # where the first record's data begins


def _answers() -> tuple[bytes, ...]:
    v4, v6 = bytes((10, 1, 2, 3)), bytes.fromhex("20010db8") + bytes(12)
    pointer = bytes((0xC0, _FIRST))
    return (
        message(NAME, (record(TO_QUESTION, dns.A, v4),)),
        message(NAME, (record(name(NAME), dns.A, v4), record(TO_QUESTION, dns.AAAA, v6))),
        message(NAME, (record(TO_QUESTION, dns.CNAME, name("cdn.net")), record(pointer, dns.A, v4))),
        message(
            NAME,
            (
                record(name("edge.net"), dns.A, v4),
                record(name("cdn.net"), dns.CNAME, name("edge.net")),
                record(TO_QUESTION, dns.CNAME, name("cdn.net")),
                record(b"\x03www\xc0\x10", dns.TXT, b"\x01x"),
            ),
        ),
        message(NAME, tuple(record(name("a" * 60 + ".b"), dns.A, v4) for _ in range(8))),
        message(NAME, tuple(record(TO_QUESTION, dns.A, bytes((10, 0, 0, number))) for number in range(32))),
    )


class Storm:
    """Client and resolver."""

    def __init__(self) -> None:
        self._client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        # Mutated questions that pass stay open: on a socket of their own, for they could be answered.
        self._other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for end in (self._client, self._server):
            end.settimeout(_TIMEOUT_S)
        self._server.bind((RESOLVER, 53))
        self._peer = ("", 0)

    def passes(self, data: bytes, client: socket.socket) -> bool:
        """Send a question."""
        try:
            client.sendto(data, (RESOLVER, 53))
        except PermissionError:
            return False
        received, self._peer = self._server.recvfrom(65536)
        return received == data

    def batch(self, seed: int, count: int) -> dict[str, object]:
        """So many questions and as many answers."""
        chance = random.Random(seed)
        answers = _answers()
        passed, wrong, taught = 0, [], set()
        for _ in range(count):
            question = mutated(QUESTION, chance)
            went = self.passes(question, self._other)
            passed += went
            if went != question_passes(question, NAMES, SUFFIXES):
                wrong.append(question.hex())
            if not self.passes(QUESTION, self._client):
                raise RuntimeError("the right question was refused")
            answer = mutated(chance.choice(answers), chance)
            self._server.sendto(answer, self._peer)
            if self._client.recv(65536) != answer:
                raise RuntimeError("another answer arrived")
            taught |= addresses_to_learn(answer, ASKED, dns.A, TRANSACTION)
        return {"passed": passed, "wrong": wrong, "taught": sorted(each.hex() for each in taught)}


def main() -> None:
    """Serve batches until the input ends."""
    enter_own_network()
    storm = Storm()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(storm.batch(*json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
