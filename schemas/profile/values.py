# SPDX-License-Identifier: Apache-2.0
"""The values of a profile: names, networks, ports, protocols. Text in, canonical value out. Pure.

Failure: ``ValueError`` whose text shows the value, says what is wrong, and ends with the cure.
"""

from __future__ import annotations

import ipaddress
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Final

# A name is compared in the kernel as it is on the wire, up to this many bytes (bpf/state.h).
MAX_NAME_BYTES: Final = 250
# What the kernel compares of a request (bpf/state.h, less the blank that ends an exact one).
MAX_URI_BYTES: Final = 235
MAX_METHOD_BYTES: Final = 15
MAX_PORT: Final = 65_535
# A path that filled the kernel's whole field could not be told from one that is cut (bpf/state.h).
MAX_PATH_BYTES: Final = 255
# What a record can say; the year 2262.
MAX_WALL_NS: Final = 2**63 - 1
_MAX_LABEL: Final = 63
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?")
_TOKEN: Final = re.compile(r"[A-Z!#$%&'*+.^_`|~-]+")
# No leading zeros: YAML 1.1 reads them as octal, YAML 1.2 does not, and who wrote them is not there to ask.
_RANGE: Final = re.compile(r"(0|[1-9][0-9]{0,4})(?:\s*-\s*(0|[1-9][0-9]{0,4}))?")
# Python's reader takes more, and some of it (week dates, a missing minute) differently from others.
_DURATION: Final = re.compile(r"(?P<number>[0-9]{1,7})(?P<unit>[smhd])")
_DURATION_UNITS_NS: Final = {
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
# A trial of a quarter of a year is a dry run that somebody forgot.
MAX_DURATION_NS: Final = 90 * _DURATION_UNITS_NS["d"]
_RFC_3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?"
    r"(?P<zone>[Zz]|[+-][0-9]{2}:[0-9]{2})?)?"
)
# IDNA 2003, which Python has, and IDNA 2008, which browsers and curl have, make different names of these.
_AMBIGUOUS: Final = frozenset("\u00df\u03c2\u200c\u200d")
# systemd.unit(5): the characters of a unit's name; of the types, those that have processes.
_UNIT: Final = re.compile(r"[A-Za-z0-9:_.\\@-]{1,240}\.(?:service|scope|socket|mount|swap)")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_URL: Final = re.compile(r"https?://[^/]*(/.*)?", re.IGNORECASE)
_IPV4_PART: Final = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){0,3}")

# https://www.iana.org/assignments/protocol-numbers, by the names the 2020 probe had.
PROTOCOLS: Final = {
    "tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58, "sctp": 132, "udplite": 136, "igmp": 2, "gre": 47,
    "esp": 50, "ah": 51, "ip": 0, "ipip": 4, "egp": 8, "igp": 9, "pup": 12, "idp": 22, "tp": 29, "dccp": 33,
    "ipv6": 41, "rsvp": 46, "mtp": 92, "beetph": 94, "encap": 98, "pim": 103, "comp": 108, "mpls": 137,
    "raw": 255,
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
    # Before anything looks at each character of it: a label takes time that grows with its square.
    if len(text) > 2 * MAX_NAME_BYTES:
        raise ValueError(f"{shown(text)} has more than {MAX_NAME_BYTES} bytes on the wire")
    plain = text.strip().removesuffix(".").lower()
    wildcard, name = plain.startswith("*."), plain.removeprefix("*.")
    _refuse_address(text, plain)
    if not name.isascii():
        if not _AMBIGUOUS.isdisjoint(name):
            raise ValueError(
                f"{shown(text)} is written as two names, by old and new IDNA; write the xn-- one"
            )
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


def _refuse_address(text: str, plain: str) -> None:
    try:
        found = ipaddress.ip_network(plain.removeprefix("[").removesuffix("]").partition("%")[0])
    except ValueError:
        return
    raise ValueError(f"{shown(text)} is an address, no name; put {found} into cidr{found.version}")


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
    text = text.strip()
    base, zone, rest = text.partition("%")
    if zone:
        plain = "/".join([base, *rest.split("/")[1:]])
        raise ValueError(f"{shown(text)} has a zone, and a network has none{_network_cure(plain)}")
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
    """An IP address in canonical text; one that is mapped is the IPv4 one."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(
            f"{shown(text)} is not an IP address; write it without name and port, for example 10.96.0.10"
        ) from None
    if isinstance(found, ipaddress.IPv6Address):
        if found.scope_id is not None:
            raise ValueError(f"{shown(text)} has a zone; did you mean {text.partition('%')[0]}?")
        return str(found.ipv4_mapped or found)
    return str(found)


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
    if not last:
        raise ValueError(f"{shown(value)} is no port; for all ports list the protocol in l4.protocols")
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


def program_path(text: str) -> str:
    """A path of a program, as the kernel walks it."""
    path = absolute_path(text)
    if path == "/":
        raise ValueError(f"{shown(text)} names no file; write the whole path")
    size = len(text.encode())
    if size > MAX_PATH_BYTES:
        raise ValueError(f"{shown(text)} has {size} bytes; the kernel compares {MAX_PATH_BYTES}")
    return path


def cgroup_path(text: str) -> str:
    """The path of a cgroup below the hierarchy's root; ``/`` is all of them."""
    for mount in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup"):
        if text.startswith(mount):
            below = text.removeprefix(mount) or "/"
            raise ValueError(f"{shown(text)} has the mount point in it; did you mean {shown(below)}?")
    return absolute_path(text)


def absolute_path(text: str) -> str:
    """A path without ``.`` and ``..``, and no pattern."""
    if not text.startswith("/"):
        raise ValueError(f"{shown(text)} is not an absolute path; begin it with /")
    if _CONTROL.search(text):
        raise ValueError(f"{shown(text)} has control characters; what has such a name must be renamed")
    if "*" in text:
        raise ValueError(f"{shown(text)} has a *, and paths are no patterns; name each one")
    parts = [part for part in text.split("/") if part]
    if any(part in {".", ".."} for part in parts):
        raise ValueError(f"{shown(text)} has a . or .. in it; the kernel compares the path it has walked")
    clean = "/" + "/".join(parts)
    if clean != text:
        raise ValueError(f"{shown(text)}; did you mean {clean}?")
    return clean


def unit_name(text: str) -> str:
    """The name of a systemd unit that has a cgroup."""
    if _UNIT.fullmatch(text):
        return text
    meant = text.rpartition("/")[2]
    meant = meant if "." in meant else f"{meant}.service"
    cure = f"did you mean {meant}?" if _UNIT.fullmatch(meant) else "write it as ssh.service"
    if meant.endswith(".slice"):
        cure = "give a slice as cgroupPath"
    raise ValueError(f"{shown(text)} is no unit that runs programs; {cure}")


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
    if url := _URL.fullmatch(text):
        raise ValueError(f"{shown(text)} is no request path; did you mean {shown(url[1] or '/')}?")
    if not text.startswith("/") and text != "*":
        raise ValueError(f"{shown(text)} is no request path; begin it with /")
    if not text.isascii() or any(each <= " " or each == "\x7f" for each in text):
        raise ValueError(f"{shown(text)} has characters no request line has; write them as %XX")
    if "*" in text[:-1]:
        raise ValueError(f"{shown(text)} has a * before its end; only the end may be open")
    if len(text) > MAX_URI_BYTES:
        raise ValueError(f"{shown(text)} has {len(text)} bytes; the kernel compares {MAX_URI_BYTES}")
    return text


def duration_ns(text: str) -> int:
    """A stretch of time, ``24h``, as nanoseconds."""
    match = _DURATION.fullmatch(text)
    found = int(match["number"]) * _DURATION_UNITS_NS[match["unit"]] if match else 0
    if not match:
        raise ValueError(f"{shown(text)} is no stretch of time; write 30m, 24h or 7d")
    if not 0 < found <= MAX_DURATION_NS:
        raise ValueError(f"{shown(text)} is not between a second and 90 days; leave it out for none")
    return found


def duration_text(duration_ns: int) -> str:
    """As :func:`duration_ns` reads it, in the largest unit that is whole."""
    for unit, size in reversed(_DURATION_UNITS_NS.items()):
        if duration_ns % size == 0:
            return f"{duration_ns // size}{unit}"
    return f"{max(1, duration_ns // _DURATION_UNITS_NS['s'])}s"


def wall_ns(text: str) -> int:
    """A time of RFC 3339 as wall nanoseconds."""
    match = _RFC_3339.fullmatch(text)
    try:
        found = datetime.fromisoformat(text.upper()) if match else None
    except ValueError:
        found = None
    if match is None or found is None:
        raise ValueError(f"{shown(text)} is no time; write 2030-01-31T12:00:00Z")
    if not match["zone"]:
        meant = text if len(text) > len("2030-01-31") else f"{text}T00:00:00"
        raise ValueError(f"{shown(text)} has no time zone; did you mean {meant}Z?")
    nanoseconds = (found - _EPOCH) // timedelta(seconds=1) * 1_000_000_000
    if not 0 < nanoseconds <= MAX_WALL_NS:
        raise ValueError(
            f"{shown(text)} is not between 1970 and 2262; leave it out for a profile without end"
        )
    return nanoseconds
