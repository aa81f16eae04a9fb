# SPDX-License-Identifier: Apache-2.0
"""Mutated requests and hellos on real connections, against the readers of tests/support/payload_reading.py.

NSP_MUTATIONS raises the number of payloads (a million takes ten minutes).
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.kernel_lab import Cgroup
from tests.support.payload_lab import HERE, Talker, client_hello, in_records, with_extension
from tests.support.payload_reading import PayloadRules, http_passes, tls_passes
from tests.support.profile_lab import ANY_ADDRESS, ProfileLab, network, traffic
from tests.support.profiles import application

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.kernel_watch import Watch

pytestmark = pytest.mark.kernel

PAYLOADS: Final = int(os.environ.get("NSP_MUTATIONS", "10000"))
BATCH: Final = 100
RULES: Final = PayloadRules(
    (("GET", "/ok*"), ("POST", "/form"), ("", "/any"), ("PUT", "/ok/exact")),
    ("good.example", "*.wild.example"),
    HERE,
)
SECOND_REQUEST: Final = b"GET /ok HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n"
REQUESTS: Final = (
    b"GET /ok/1 HTTP/1.1\r\nHost: good.example\r\n\r\n",
    b"POST /form HTTP/1.1\r\nhost: a.wild.example\r\nContent-Length: 1\r\n\r\nx" + SECOND_REQUEST,
    b"PUT /ok/exact HTTP/1.1\nX: y\nHost: good.example\n\n",
    b"DELETE /any HTTP/1.1\r\nHost: good.example\r\nAccept: */*\r\nUpgrade: x\r\n\r\n",
    b"GET /ok/a/.b/c?d=/../e HTTP/1.1\r\nHost:GOOD.example \r\nCookie: a=b\r\n\r\n",
    b"GET /no HTTP/1.1\r\nHost: good.example\r\n\r\n",
    b"GET /ok HTTP/1.1\r\nHost: bad.example\r\n\r\n",
)
PIECES: Final = (
    b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b":", b"/../", b"/./", b"%2e", b"%2F", b"\\", b"..",
    b";", b"?", b"#",
    b"Host: bad.example\r\n", b"Host: good.example\r\n", b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b" HTTP/1.1", b"HTTP/0.9", b"GET /no HTTP/1.1\r\nHost: good.example\r\n\r\n", b"\xff", b".",
    b"good.example",
    b"\r\n\r\n", b"/ok", b"[::1]", b"@", b"POST ", b"\x16\3\1", b"\0\0\0\x11\0\x0f\0\0\x0cgood.example",
)  # fmt: skip


def hellos() -> tuple[bytes, ...]:
    good = client_hello("good.example")
    return (
        good,
        client_hello("a.wild.example"),
        client_hello("bad.example"),
        in_records(good, 50),
        with_extension(good, 0xFE0D, b"x" * 20),
        client_hello(None),
    )


def mutated(data: bytes, chance: random.Random) -> bytes:
    """One to four changes, or none."""
    changed = bytearray(data)
    for _ in range(chance.choice((0, 1, 1, 1, 2, 4))):
        at, size = chance.randrange(len(changed) + 1), chance.choice((1, 1, 2, 5))
        kind = chance.randrange(5)
        if kind == 0:
            changed[at : at + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            del changed[at : at + size]
        elif kind == 2:
            changed[at:at] = chance.choice(PIECES)
        elif kind == 3:
            changed[at:at] = changed[at : at + 8 * size]
        elif at < len(changed):
            changed[at] ^= 1 << chance.randrange(8)
    return bytes(changed)


def cut(data: bytes, chance: random.Random) -> list[bytes]:
    """Into one to four pieces."""
    ends = sorted(chance.randrange(len(data) + 1) for _ in range(chance.choice((0, 0, 1, 3))))
    pieces = [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]
    return [piece for piece in pieces if piece]


@pytest.fixture
def talker(watch: Watch) -> Iterator[Talker]:
    pod = Cgroup(watch.cgroup.path / "mutated")
    pod.path.mkdir()
    lab = ProfileLab(watch.kernel)
    http = [{"method": method, "uri": uri} for method, uri in RULES.http]
    l7 = application("HTTP", "HTTPS", http=http, sni=RULES.names)
    rules = network(traffic(*ANY_ADDRESS, names=RULES.names, l7=l7), traffic(*ANY_ADDRESS))
    lab.govern(lab.slot_for(pod.id), rules)
    with Talker(pod) as started:
        yield started
    pod.remove()


def hold_against_reference(
    talker: Talker, seed: int, said: tuple[bytes, ...], passes: Callable[[bytes, PayloadRules], bool | None]
) -> int:
    """Say mutated payloads; returns how many the reference had an opinion about."""
    chance = random.Random(seed)
    opinions = 0
    for _ in range(PAYLOADS // 2 // BATCH):
        payloads = [data for data in (mutated(chance.choice(said), chance) for _ in range(BATCH)) if data]
        wanted = [passes(data, RULES) for data in payloads]
        cases = [(bool(each), cut(data, chance)) for each, data in zip(wanted, payloads, strict=True)]
        arrived = talker.arrived(cases)
        for data, each, count, (_, pieces) in zip(payloads, wanted, arrived, cases, strict=True):
            if each is not None:
                opinions += 1
                assert (count == len(data)) == each, (each, pieces)
    return opinions


@pytest.mark.timeout(120 + PAYLOADS // 500)
def test_mutated_requests_pass_when_the_reference_says_so(watch: Watch, talker: Talker) -> None:
    assert hold_against_reference(talker, 20260101, REQUESTS, http_passes) > PAYLOADS // 4
    assert "tail_call" not in watch.counted()


@pytest.mark.timeout(120 + PAYLOADS // 500)
def test_mutated_hellos_pass_when_the_reference_says_so(watch: Watch, talker: Talker) -> None:

    def passes(data: bytes, rules: PayloadRules) -> bool | None:
        return tls_passes(data, rules) if data[0] == 0x16 else http_passes(data, rules)

    assert hold_against_reference(talker, 20260102, hellos(), passes) > PAYLOADS // 4
    assert "tail_call" not in watch.counted()
