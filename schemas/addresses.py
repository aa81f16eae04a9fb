# SPDX-License-Identifier: Apache-2.0
"""Addresses as text on the topics, as 16 bytes (IPv4 mapped) in the kernel's maps and events."""

from __future__ import annotations

import socket
from typing import Final

from schemas.errors import SchemaError

MAPPED_PREFIX: Final = bytes(10) + b"\xff\xff"
ADDRESS_BYTES: Final = 16


def to_text(address: bytes) -> str:
    """Text of a 16-byte address; a mapped one is written as IPv4."""
    if address.startswith(MAPPED_PREFIX):
        return socket.inet_ntop(socket.AF_INET, address[12:])
    return socket.inet_ntop(socket.AF_INET6, address)


def to_mapped(text: str) -> bytes:
    """The 16 bytes of an IPv4 or IPv6 address in textual form.

    Raises:
        SchemaError: No such address.
    """
    try:
        if ":" in text:
            return socket.inet_pton(socket.AF_INET6, text)
        return MAPPED_PREFIX + socket.inet_pton(socket.AF_INET, text)
    except (OSError, ValueError) as error:
        raise SchemaError(f"{text[:64]!r} is no IPv4 or IPv6 address") from error
