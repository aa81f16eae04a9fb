# SPDX-License-Identifier: Apache-2.0
"""Numbers and keys of bpf/state.h that rules are compiled to. Pure.

A trie item is the whole key as the kernel reads it (u32 prefixlen in front, zero padded) and its value.
tests/unit/sensor/policy/test_layout.py compares every number with the header.
"""

from __future__ import annotations

import struct
from typing import Final, Literal

TrieKind = Literal["address", "port", "name", "http"]
KINDS: Final[tuple[TrieKind, ...]] = ("address", "port", "name", "http")

OUT: Final = 0
IN: Final = 1

MODE_NONE: Final = 0
MODE_ALERT: Final = 1
MODE_ENFORCE: Final = 2

BREAK_GLASS_OUT: Final = 0
BREAK_GLASS_IN: Final = 1
BREAK_GLASS_BIND: Final = 2

SLOT_HOST: Final = 0
SLOT_UNKNOWN: Final = 1

POLICY_PROGRAMS: Final = 1
POLICY_UNKNOWN_WORKLOAD: Final = 2
POLICY_LOOPBACK: Final = 4
POLICY_ARP_SPOOFING: Final = 8
POLICY_TRACE_DNS: Final = 16

# Of one direction; those of ingress are shifted.
L3_IPV4: Final = 1
L3_IPV6: Final = 2
L3_ARP: Final = 4
ANY_IPV4: Final = 8
ANY_IPV6: Final = 16
PORTS: Final = 32
L7: Final = 64
INGRESS_SHIFT: Final = 8
# Of the rule set.
NAMES: Final = 1 << 16
DNS_ANY: Final = 1 << 17
RAW_SOCKETS: Final = 1 << 18

L7_DNS: Final = 1
L7_HTTP: Final = 2
L7_TLS: Final = 4
L7_OPAQUE: Final = 8
L7_HTTP_RULES: Final = 16
L7_SNI_RULES: Final = 32

NAME_ASK: Final = 1
NAME_REACH: Final = 2
NAME_SNI: Final = 4
NAME_SNI_IN: Final = 8
SNI_OF: Final = (NAME_SNI, NAME_SNI_IN)
NAME_BYTES: Final = 252
# Longest reversed name without its final NUL.
NAME_MAX: Final = NAME_BYTES - 2

HTTP_METHOD_BYTES: Final = 15
HTTP_URI_BYTES: Final = 236
PROGRAM_PATH_BYTES: Final = 256

REASON_NONE: Final = 0
REASON_UNKNOWN_WORKLOAD: Final = 4
REASON_L3_PROTOCOL: Final = 5
REASON_L4_PROTOCOL: Final = 6
REASON_ADDRESS: Final = 7
REASON_DNS_NAME: Final = 8
REASON_L7_PROTOCOL: Final = 9
REASON_HTTP_REQUEST: Final = 10
REASON_TLS_SNI: Final = 11
REASON_OPAQUE: Final = 12
REASON_RAW_SOCKET: Final = 13

ADDRESS_KEY: Final = struct.Struct("<IB3x16s")
PORT_KEY: Final = struct.Struct("<IBBH")
NAME_KEY: Final = struct.Struct(f"<I{NAME_BYTES}s")
HTTP_KEY: Final = struct.Struct(f"<IB{HTTP_METHOD_BYTES}s{HTTP_URI_BYTES}s")
_ADDRESS_BASE: Final = 32
_PORT_BASE: Final = 16
_HTTP_BASE: Final = 8 * (1 + HTTP_METHOD_BYTES)


def address_key(direction: int, address: bytes, bits: int = 128) -> bytes:
    """``struct nsp_address_rule``; bits of the 16 bytes count."""
    return ADDRESS_KEY.pack(_ADDRESS_BASE + bits, direction, address)


def port_key(direction: int, protocol: int, port: int, bits: int = 16) -> bytes:
    """``struct nsp_port_rule``; bits of the port count."""
    return PORT_KEY.pack(_PORT_BASE + bits, direction, protocol, port >> 8 | (port & 0xFF) << 8)


def name_key(name: bytes) -> bytes:
    """``struct nsp_name_rule`` of a reversed name with the byte that ends it (names.py)."""
    return NAME_KEY.pack(8 * len(name), name)


def http_key(direction: int, method: bytes, uri: bytes) -> bytes:
    """``struct nsp_http_rule`` of a URI with the blank that ends an exact one."""
    return HTTP_KEY.pack(_HTTP_BASE + 8 * len(uri), direction, method, uri)


def executable_key(path: str) -> bytes:
    """``struct nsp_program_path`` of an executable, unpadded: components leaf first, each with its NUL."""
    return b"".join(part.encode() + b"\0" for part in reversed(path.split("/")) if part)


def script_key(path: str) -> bytes:
    """The same of a script: its text."""
    return path.encode()
