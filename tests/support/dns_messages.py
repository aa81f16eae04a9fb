# SPDX-License-Identifier: Apache-2.0
"""DNS messages put together byte by byte, and a slow, plain reader of their answer section.

Both are written from RFC 1035 and share nothing with the code under test.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random

QUERY: Final = 0x0100  # recursion desired
RESPONSE: Final = 0x8180  # response, recursion desired and available
TRUNCATED: Final = 0x0200
SERVFAIL: Final = 2
NXDOMAIN: Final = 3
A: Final = 1
CNAME: Final = 5
TXT: Final = 16
AAAA: Final = 28
CLASS_IN: Final = 1
CLASS_CHAOS: Final = 3
HEADER_BYTES: Final = 12
TO_QUESTION: Final = b"\xc0\x0c"  # a pointer to the question's name
MAX_COPY_BYTES: Final = 2048
MAX_RECORDS: Final = 32
MAX_STEPS: Final = 256


def name(text: str) -> bytes:
    """Wire form, not compressed; "" is the root."""
    labels = [label.encode() for label in text.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def record(owner: bytes, kind: int, data: bytes, ttl_s: int = 60, record_class: int = CLASS_IN) -> bytes:
    """One resource record; the owner is in wire form already."""
    return owner + struct.pack(">HHIH", kind, record_class, ttl_s, len(data)) + data


def message(
    question: str,
    records: tuple[bytes, ...] = (),
    *,
    flags: int = RESPONSE,
    kind: int = A,
    count: int | None = None,
    transaction: int = 0x1234,
) -> bytes:
    """A message with one question; count is what the header claims, not what there is."""
    claimed = len(records) if count is None else count
    head = struct.pack(">6H", transaction, flags, 1, claimed, 0, 0)
    return head + name(question) + struct.pack(">HH", kind, CLASS_IN) + b"".join(records)


def mutated(data: bytes, generator: random.Random) -> bytes:
    """A message with a few bytes changed, sometimes cut or continued; mostly still with a DNS header."""
    changed = bytearray(data)
    first = 0 if generator.random() < 0.15 else HEADER_BYTES
    for _ in range(generator.randint(0, 6)):
        last = len(changed) if generator.random() < 0.6 else min(len(changed), 64)
        changed[generator.randrange(first, last)] = generator.choice(
            (0, 1, 63, 64, 0xC0, 0xFF, generator.randrange(256))
        )
    action = generator.random()
    if action < 0.2:
        return bytes(changed[: generator.randrange(1, len(changed))])
    if action < 0.3:
        changed += generator.randbytes(generator.randrange(1, 80))
    if action > 0.9:
        struct.pack_into(">H", changed, 6, generator.choice((0, 1, 2, 31, 32, 33, 65535)))
    return bytes(changed)


@dataclass(frozen=True, slots=True)
class Reading:
    """What an event of a message has to say: record places are (ttl, type, offset, bytes).

    Owners are the offsets at which the records' names begin.
    """

    name_bytes: int
    question_type: int
    records: tuple[tuple[int, int, int, int], ...] = ()
    cut: bool = False
    malformed: bool = False
    more: bool = False
    owners: tuple[int, ...] = field(default=(), compare=False)


def read(data: bytes, *, response: bool) -> Reading | None:
    """What the kernel should report, or None for no event because this is not DNS."""
    if len(data) < HEADER_BYTES:
        return None
    flags, questions, answers = struct.unpack_from(">HHH", data, 2)
    if bool(flags & 0x8000) != response or flags & 0x7800 or questions != 1:
        return None
    cut = len(data) > MAX_COPY_BYTES
    data = data[:MAX_COPY_BYTES]
    name_bytes = _name_bytes(data)
    at = HEADER_BYTES + name_bytes + 4
    if not name_bytes or at > len(data):
        return Reading(0, 0, cut=cut, malformed=not cut)
    (question_type,) = struct.unpack_from(">H", data, at - 4)
    if not response:
        return Reading(name_bytes, question_type, cut=cut)
    found, problem = _records(data, at, answers)
    malformed = problem == "malformed" and not cut
    records, owners = tuple(each[1:] for each in found), tuple(each[0] for each in found)
    return Reading(name_bytes, question_type, records, cut, malformed, problem == "more", owners)


def _name_bytes(data: bytes) -> int:
    at = HEADER_BYTES
    while at < len(data) and at < HEADER_BYTES + 255:
        if data[at] == 0:
            return at + 1 - HEADER_BYTES
        if data[at] > 63:
            return 0
        at += 1 + data[at]
    return 0


def _records(data: bytes, at: int, remaining: int) -> tuple[list[tuple[int, int, int, int, int]], str]:
    found: list[tuple[int, int, int, int, int]] = []
    owner = at
    for _ in range(MAX_STEPS):
        if not remaining:
            return found, ""
        if len(found) == MAX_RECORDS:
            break
        if at >= len(data):
            return found, "malformed"
        length = data[at]
        if 0 < length < 64:
            at += 1 + length
            continue
        at += 2 if length else 1
        if 64 <= length < 0xC0 or at + 10 > len(data):
            return found, "malformed"
        kind, record_class, ttl_s, data_bytes = struct.unpack_from(">HHIH", data, at)
        at += 10
        if at + data_bytes > len(data):
            return found, "malformed"
        if record_class == CLASS_IN:
            found.append((owner, ttl_s, kind, at, data_bytes))
        at += data_bytes
        owner = at
        remaining -= 1
    return found, "more" if remaining else ""
