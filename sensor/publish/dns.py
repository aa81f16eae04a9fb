# SPDX-License-Identifier: Apache-2.0
"""DNS names and records from the wire, as the kernel copied them. Pure.

Input: message bytes, and where the kernel says the records lie. Output: text, and whether it is all there.
Everything here comes from whoever sends packets: any bytes give a result, none raise. The work for one
message is bounded by its 2048 bytes times 32 records, each name by its 255 octets.
"""

from __future__ import annotations

import re
import socket
from typing import Final

TYPE_A: Final = 1
TYPE_CNAME: Final = 5
TYPE_AAAA: Final = 28
# RFC 1035: a name has at most 255 octets with its length bytes, so at most 127 labels; a pointer has to
# lead backwards, and no honest name needs one per label.
MAX_LABEL_OCTETS: Final = 63
MAX_NAME_OCTETS: Final = 255
MAX_POINTERS: Final = 127
_POINTER: Final = 0xC0
# A dot inside of a label and the backslash itself would read as something else.
_VISIBLE: Final = frozenset(range(0x21, 0x7F)) - frozenset(b".\\")
_PLAIN_LABEL: Final = re.compile(rb"[a-z0-9_-]+")


def decode_name(message: bytes, offset: int) -> tuple[str, bool]:
    """The name that begins at an offset.

    Returns:
        Lower-case text without the final dot, empty for the root; and False when the name is broken or
        runs out of the message, then with the labels that could be read.
    """
    labels: list[str] = []
    octets = 1
    pointers = 0
    end = len(message)
    while 0 <= offset < end:
        length = message[offset]
        if not length:
            return ".".join(labels), True
        if length >= _POINTER:
            pointers += 1
            if offset + 1 >= end or pointers > MAX_POINTERS:
                break
            target = (length & ~_POINTER) << 8 | message[offset + 1]
            if target >= offset:
                break
            offset = target
            continue
        octets += length + 1
        if length > MAX_LABEL_OCTETS or octets > MAX_NAME_OCTETS or offset + 1 + length > end:
            break
        labels.append(_label(message[offset + 1 : offset + 1 + length]))
        offset += 1 + length
    return ".".join(labels), False


def _label(raw: bytes) -> str:
    lowered = raw.lower()
    if _PLAIN_LABEL.fullmatch(lowered):
        return lowered.decode("ascii")
    return "".join(_character(byte) for byte in lowered)


def _character(byte: int) -> str:
    return chr(byte) if byte in _VISIBLE else f"\\{byte:03d}"


def record_text(kind: int, message: bytes, offset: int, length: int) -> tuple[str, bool]:
    """A record's data as the schema has it, and whether it could be read.

    Args:
        kind: RR type.
        message: The whole message: a CNAME's target may point anywhere before.
        offset: Of the record's data in the message.
        length: Bytes of the data.
    """
    data = message[offset : offset + length]
    if kind == TYPE_A:
        return (socket.inet_ntop(socket.AF_INET, data), True) if len(data) == 4 else ("", False)  # noqa: PLR2004
    if kind == TYPE_AAAA:
        return (socket.inet_ntop(socket.AF_INET6, data), True) if len(data) == 16 else ("", False)  # noqa: PLR2004
    if kind == TYPE_CNAME:
        return decode_name(message, offset) if data else ("", False)
    return "", len(data) == length
