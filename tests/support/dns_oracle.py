# SPDX-License-Identifier: Apache-2.0
"""What the kernel has to make of a question and of an answer, told once more, slow and plain.

Shares nothing with the code under test but the limits. Names are tuples of labels in lower case.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from tests.support import dns_messages as dns

if TYPE_CHECKING:
    from collections.abc import Collection

Name = tuple[bytes, ...]

_MAX_RULE_BYTES: Final = 250
_MAX_CHAIN: Final = 17
_POINTER: Final = 0xC0
_MAX_LABEL: Final = 63
_IN_NAMES: Final = frozenset(b"-0123456789")
_RCODE: Final = 0xF
_ADDRESS_BYTES: Final = {dns.A: 4, dns.AAAA: 16}


def question_passes(data: bytes, names: Collection[str], suffixes: Collection[str]) -> bool:
    """Whether a datagram to a listed resolver may leave, where these names may be asked."""
    reading = dns.read(data, response=False)
    if reading is None or not reading.name_bytes or reading.name_bytes - 1 > _MAX_RULE_BYTES:
        return False
    asked = read_name(data, dns.HEADER_BYTES) or ()
    if any(byte <= _MAX_LABEL and byte not in _IN_NAMES for label in asked for byte in label):
        return False
    text = b".".join(asked).decode("latin-1")
    return text in names or any(text.endswith("." + suffix) for suffix in suffixes)


def addresses_to_learn(data: bytes, asked: Name, kind: int, transaction: int) -> set[bytes]:
    """The addresses, 4 or 16 bytes, that an answer teaches who asked this."""
    reading = dns.read(data, response=True)
    if reading is None or not reading.name_bytes or struct.unpack_from(">H", data)[0] != transaction:
        return set()
    if reading.question_type != kind or read_name(data, dns.HEADER_BYTES) != asked or data[3] & _RCODE:
        return set()
    data = data[: dns.MAX_COPY_BYTES]
    owners = [_place(data, owner) for owner in reading.owners]
    owned = _by_place(reading, owners)
    if owned is None:
        owned = _by_name(reading, owners, data, asked)
    return {
        data[at : at + length]
        for number, (_, each, at, length) in enumerate(reading.records)
        if number in owned and _ADDRESS_BYTES.get(each) == length
    }


def read_name(data: bytes, at: int) -> Name | None:
    """A name with its pointers followed, each before what was read so far; None when it is broken."""
    labels: list[bytes] = []
    data += b"\0"  # what is read behind the end is nothing
    end, first = len(data) - 1, at
    while at < end:
        length = data[at]
        if not length:
            return tuple(labels)
        if length <= _MAX_LABEL:
            labels.append(data[at + 1 : at + 1 + length].lower())
            at += 1 + length
            continue
        target = (length & _MAX_LABEL) << 8 | data[at + 1]
        if length < _POINTER or target >= first:
            return None
        at = first = target
    return None


def _place(data: bytes, owner: int) -> int:
    if data[owner] < _POINTER:
        return owner
    return (data[owner] & _MAX_LABEL) << 8 | data[owner + 1]


def _by_place(reading: dns.Reading, owners: list[int]) -> set[int] | None:
    """Records on the chain when each owner is the very place the chain has come to, else None."""
    owned, current = set(), dns.HEADER_BYTES
    for number, (_, kind, at, length) in enumerate(reading.records):
        if kind != dns.CNAME and _ADDRESS_BYTES.get(kind) != length:
            continue
        if owners[number] != current:
            return None
        owned.add(number)
        if kind == dns.CNAME:
            current = at
    return owned


def _by_name(reading: dns.Reading, owners: list[int], data: bytes, asked: Name) -> set[int]:
    owned: set[int] = set()
    current: Name | None = asked
    names = [read_name(data, owner) for owner in owners]
    for _ in range(_MAX_CHAIN):
        following = None
        if current is None:
            break
        for number, (_, kind, at, _) in enumerate(reading.records):
            if names[number] == current:
                owned.add(number)
                if kind == dns.CNAME:
                    following = read_name(data, at)
        current = following
    return owned
