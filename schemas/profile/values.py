# SPDX-License-Identifier: Apache-2.0
"""The values of a profile: names, networks, ports, protocols. Text in, canonical value out. Pure.

Failure: ``ValueError`` whose text shows the value, says what is wrong, and ends with the cure.
"""

from __future__ import annotations

import ipaddress
import json
import re
from datetime import UTC, datetime
from typing import Final

# A name is compared in the kernel as it is on the wire, up to this many bytes (bpf/state.h).
MAX_NAME_BYTES: Final = 250
# What the kernel compares of a request (bpf/state.h, less the blank that ends an exact one).
MAX_URI_BYTES: Final = 235
MAX_METHOD_BYTES: Final = 15
MAX_PORT: Final = 65_535
_MAX_LABEL: Final = 63
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?")
_TOKEN: Final = re.compile(r"[A-Z!#$%&'*+.^_`|~-]+")
_RANGE: Final = re.compile(r"([0-9]{1,5})(?:\s*-\s*([0-9]{1,5}))?")
_IPV4_PART: Final = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){0,3}")

# https://www.iana.org/assignments/protocol-numbers
PROTOCOLS: Final = {
    "icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "icmpv6": 58, "sctp": 132,
    "udplite": 136,
}  # fmt: skip
WITH_PORTS: Final = frozenset({6, 17, 132, 136})

# RFC 792 and RFC 4443, by the names ping and nft use.
ICMP_TYPES: Final = {
    "echo-reply": 0, "destination-unreachable": 3, "redirect": 5, "echo-request": 8, "time-exceeded": 11,
    "parameter-problem": 12, "timestamp-request": 13, "timestamp-reply": 14,
}  # fmt: skip
ICMPV6_TYPES: Final = {
    "destination-unreachable": 1, "packet-too-big": 2, "time-exceeded": 3, "parameter-problem": 4,
    "echo-request": 128, "echo-reply": 129, "router-solicitation": 133, "router-advertisement": 134,
    "neighbour-solicitation": 135, "neighbour-advertisement": 136,
}  # fmt: skip


def shown(value: object) -> str:
    """A value as an error quotes it: escaped, and cut."""
    limit = 80
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= limit else text[:limit] + '..."'


def domain_name(text: str) -> str:
    """A DNS name or ``*.suffix``, in lower case, as A-labels, without the final dot."""
    plain = text.strip().removesuffix(".").lower()
    wildcard, name = plain.startswith("*."), plain.removeprefix("*.")
    if not name.isascii():
        try:
            name = name.encode("idna").decode("ascii")
        except UnicodeError as error:
            raise ValueError(f"{shown(text)} is not a DNS name: {error.__cause__ or error}") from error
    labels = name.split(".")
    if "*" in name:
        cure = "only a whole first label may be one, as in *.example.com"
        raise ValueError(f"{shown(text)} has a * in the wrong place; {cure}")
    for label in labels:
        if not _LABEL.fullmatch(label) or len(label) > _MAX_LABEL:
            raise ValueError(f"{shown(text)} is not a DNS name{_name_cure(text)}")
    if len(name) + 1 > MAX_NAME_BYTES:
        raise ValueError(f"{shown(text)} has more than {MAX_NAME_BYTES} bytes on the wire")
    return f"*.{name}" if wildcard else name


def _name_cure(text: str) -> str:
    stripped = re.sub(r"^[a-zA-Z]+://", "", text.strip()).split("/")[0].rpartition("@")[2]
    host = re.sub(r":[0-9]+$", "", stripped)
    if host and host != text.strip():
        try:
            return f"; did you mean {domain_name(host)}?"
        except ValueError:
            return ""
    return "; letters, digits, - and _ between dots, at most 63 a label"


def network(text: str, version: int) -> str:
    """A CIDR of IPv4 or IPv6, in canonical text.

    Bits behind the prefix are cleared, not refused: the 2020 probe's own examples have some.
    """
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        cure = _network_cure(text)
        raise ValueError(f"{shown(text)} is not a CIDR{cure}") from None
    if "/" not in text:
        raise ValueError(f"{shown(text)} is not a CIDR; did you mean {found}?")
    if found.version != version:
        other = "cidr6" if found.version == 6 else "cidr4"  # noqa: PLR2004 - IP versions
        raise ValueError(f"{shown(text)} is IPv{found.version}; put it into {other}")
    return str(found)


def _network_cure(text: str) -> str:
    base, _, bits = text.partition("/")
    if _IPV4_PART.fullmatch(base.rstrip(".")):
        base = ".".join([*base.rstrip(".").split("."), "0", "0", "0"][:4])
    try:
        meant = ipaddress.ip_network(f"{base}/{bits}" if bits else base, strict=False)
    except ValueError:
        return "; write it as address/bits, for example 10.0.0.0/8"
    return f"; did you mean {meant}?"


def address(text: str) -> str:
    """An IP address in canonical text."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError(f"{shown(text)} is not an IP address") from None


def protocol_number(value: str | int) -> int:
    """An IP protocol by name or number."""
    if isinstance(value, int):
        if not 0 <= value <= 255:  # noqa: PLR2004 - a byte
            raise ValueError(f"{value} is no IP protocol; they go from 0 to 255")
        return value
    found = PROTOCOLS.get(value.lower())
    if found is None:
        raise ValueError(f"{shown(value)} is no protocol known here; {', '.join(PROTOCOLS)}, or its number")
    return found


def port_range(value: str | int) -> tuple[int, int]:
    """A port, or a range as ``first-last``."""
    match = _RANGE.fullmatch(str(value).strip())
    if match is None:
        raise ValueError(f"{shown(value)} is no port; write 443, or 8000-8080")
    first, last = int(match[1]), int(match[2] or match[1])
    if first > MAX_PORT or last > MAX_PORT:
        raise ValueError(f"{shown(value)} is no port; they go up to {MAX_PORT}")
    if first > last:
        raise ValueError(f"{shown(value)} goes backwards; did you mean {last}-{first}?")
    return first, last


def icmp_type(value: str | int, version: int) -> int:
    """An ICMP type by name or number."""
    names = ICMP_TYPES if version == 4 else ICMPV6_TYPES  # noqa: PLR2004 - IP versions
    if isinstance(value, int):
        if not 0 <= value <= 255:  # noqa: PLR2004 - a byte
            raise ValueError(f"{value} is no ICMP type; they go from 0 to 255")
        return value
    if value not in names:
        raise ValueError(f"{shown(value)} is no ICMP type known here; {', '.join(names)}, or its number")
    return names[value]


def absolute_path(text: str) -> str:
    """A path of a program: absolute, without ``.`` and ``..``, as the kernel walks it."""
    if not text.startswith("/") or "\0" in text:
        raise ValueError(f"{shown(text)} is not an absolute path; begin it with /")
    parts = [part for part in text.split("/") if part]
    if any(part in {".", ".."} for part in parts):
        raise ValueError(f"{shown(text)} has a . or .. in it; the kernel compares the path it has walked")
    clean = "/" + "/".join(parts)
    if clean != text:
        raise ValueError(f"{shown(text)}; did you mean {clean}?")
    return clean


def http_method(text: str) -> str:
    """A method in upper case; ``*`` is any."""
    method = text.upper()
    if method == "*":
        return ""
    if not _TOKEN.fullmatch(method) or len(method) > MAX_METHOD_BYTES:
        raise ValueError(f"{shown(text)} is no HTTP method; GET, POST, ... or *")
    return method


def http_uri(text: str) -> str:
    """A path with its query, as sent; a final ``*`` matches any rest."""
    if not text.startswith("/") and text != "*":
        raise ValueError(f"{shown(text)} is no request path; begin it with /")
    if not text.isascii() or any(each <= " " or each == "\x7f" for each in text):
        raise ValueError(f"{shown(text)} has characters no request line has; write them as %XX")
    if "*" in text[:-1]:
        raise ValueError(f"{shown(text)} has a * before its end; only the end may be open")
    if len(text) > MAX_URI_BYTES:
        raise ValueError(f"{shown(text)} has {len(text)} bytes; the kernel compares {MAX_URI_BYTES}")
    return text


def wall_ns(text: str) -> int:
    """A time of RFC 3339 as wall nanoseconds."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{shown(text)} is no time; write 2030-01-31T12:00:00Z") from None
    if found.tzinfo is None:
        raise ValueError(f"{shown(text)} has no time zone; did you mean {text}Z?")
    seconds = found.astimezone(UTC).timestamp()
    if seconds <= 0:
        raise ValueError(f"{shown(text)} is before 1970")
    return int(seconds) * 1_000_000_000
