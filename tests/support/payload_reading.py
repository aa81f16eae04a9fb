# SPDX-License-Identifier: Apache-2.0
"""What is said in these bytes, read as the documentation has it: the reference for the kernel's readers.

``http_passes`` and ``tls_passes`` answer whether every byte of a connection may pass under rules that
compare requests, hosts and server names and do not let unreadable payloads pass. None: the bytes end within
a head, so that nothing can be acted on yet.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.support.flows import name_matches

if TYPE_CHECKING:
    from collections.abc import Iterable

_LINE: Final = re.compile(rb"([A-Za-z0-9_-]{1,15}) ([\x21-\x7e\x80-\xff]+) HTTP/1\.([01])")
_HEADER: Final = re.compile(rb"([\x21-\x39\x3b-\x7e]+):([^\r]*)")
_HOST: Final = re.compile(rb"[ \t]*(?:([A-Za-z0-9._-]+|\[[\x21-\x5c\x5e-\x7e]*\])(?::[0-9]*)?[ \t]*)?")
_LENGTH: Final = re.compile(rb"[ \t]*([0-9]{1,15})[ \t]*")
_DOTS: Final = re.compile(rb"(?:^|.*/)\.{1,2}(?=[/?#;% ])|.*%2e", re.DOTALL)
_SLASHES: Final = re.compile(rb"\\|%2f|%5c")
_HELLO_FIXED: Final = 34


@dataclass(frozen=True, slots=True)
class PayloadRules:
    """What may be said.

    Attributes:
        http: Method (empty: any) and URI, a final * for any rest.
        names: Of hosts that may be reached; of servers.
        address: The server's, which may be the host too.
    """

    http: tuple[tuple[str, str], ...]
    names: tuple[str, ...]
    address: str

    def host_passes(self, host: bytes) -> bool:
        """Whether a Host may be asked for."""
        return host.decode() == self.address or self.name_passes(host)

    def name_passes(self, name: bytes) -> bool:
        """Whether a name matches a rule, and is one."""
        text = name.decode()
        labels = text.split(".")
        if len(text) > 249 or not all(0 < len(label) <= 63 for label in labels):
            return False
        return any(name_matches(rule, text) for rule in self.names)

    def request_passes(self, method: bytes, uri: bytes) -> bool:
        """Whether a request is listed, and its path is the one that is written."""
        return not has_dot_segment(uri) and any(
            rule in {"", method.decode()} and _uri_matches(pattern.encode(), uri)
            for rule, pattern in self.http
        )


def has_dot_segment(uri: bytes) -> bool:
    """Whether a server could make another path of this one."""
    path = uri.split(b"?")[0].lower() + b" "
    return _DOTS.match(_SLASHES.sub(b"/", b"x" + path)) is not None


def _uri_matches(pattern: bytes, uri: bytes) -> bool:
    return uri.startswith(pattern[:-1]) if pattern.endswith(b"*") else uri == pattern


def _lines(data: bytes) -> Iterable[tuple[bytes, int]]:
    """Complete lines without their ends, and where the next begins."""
    at = 0
    while (end := data.find(b"\n", at)) >= 0:
        line = data[at:end]
        yield line.removesuffix(b"\r"), end + 1
        at = end + 1


def http_passes(data: bytes, rules: PayloadRules) -> bool | None:
    """Whether all requests of these bytes pass."""
    while data:
        if data.startswith((b"\n", b"\r\n")):
            data = data[1 if data[:1] == b"\n" else 2 :]
            continue
        passes, rest = _request(data, rules)
        if not passes or rest is None:
            return passes
        data = rest
    return True


def _request(data: bytes, rules: PayloadRules) -> tuple[bool | None, bytes | None]:
    """The verdict about the first request, and what follows it; None there: nothing does."""
    lines = iter(_lines(data))
    first, _ = next(lines, (None, 0))
    if first is None:
        return None, None
    line = _LINE.fullmatch(first)
    if line is None or not rules.request_passes(line[1], line[2]):
        return False, None
    headers: dict[bytes, list[bytes]] = {}
    for text, end in lines:
        if not text:
            passes, body = _head_passes(line, headers, rules)
            return passes, _after(data[end:], line, headers, body) if passes else None
        header = _HEADER.fullmatch(text)
        if header is None:
            return False, None
        headers.setdefault(header[1].lower(), []).append(header[2])
    return None, None


def _head_passes(
    line: re.Match[bytes], headers: dict[bytes, list[bytes]], rules: PayloadRules
) -> tuple[bool, int]:
    hosts, lengths = headers.get(b"host", []), headers.get(b"content-length", [])
    if len(hosts) > 1 or len(lengths) + (b"transfer-encoding" in headers) > 1:
        return False, 0
    host = _HOST.fullmatch(hosts[0]) if hosts else None
    length = _LENGTH.fullmatch(lengths[0]) if lengths else None
    if (hosts and host is None) or (lengths and length is None):
        return False, 0
    named = host[1].lower() if host and host[1] else b""
    if not hosts and line[3] == b"1":
        return False, 0
    return rules.host_passes(named), int(length[1]) if length else 0


def _after(rest: bytes, line: re.Match[bytes], headers: dict[bytes, list[bytes]], body: int) -> bytes | None:
    """The next request; a space where bytes follow that cannot be told from one."""
    if line[1] == b"CONNECT" or headers.keys() & {b"upgrade", b"transfer-encoding"}:
        return b" " * bool(rest[body:]) or None
    return rest[body:]


class _HelloError(Exception):
    """These bytes are no hello."""


class _HelloCutError(Exception):
    """These bytes end too early."""


def tls_passes(data: bytes, rules: PayloadRules) -> bool | None:
    """Whether the hello passes; None also when anything follows it."""
    try:
        name, encrypted, whole = server_name(data)
    except _HelloError:
        return False
    except _HelloCutError:
        return None
    if not whole:
        return None
    return not encrypted and rules.name_passes(name)


def server_name(data: bytes) -> tuple[bytes, bool, bool]:
    """Server name in lower case, whether there is an encrypted hello, and whether that is all."""
    message = _handshake(data)
    kind, size = message[0], int.from_bytes(message[1:4], "big")
    if kind != 1:
        raise _HelloError
    body = message[4 : 4 + size]
    if len(body) < size:
        raise _HelloCutError
    at = _HELLO_FIXED
    for length_bytes, most in ((1, 32), (2, 65535), (1, 255)):
        length = int.from_bytes(_exactly(body, at, length_bytes), "big")
        if length > most:
            raise _HelloError
        at += length_bytes + length
    whole = len(message) == 4 + size
    if at == len(body):
        return b"", False, whole
    extensions = _exactly(body, at + 2, len(body) - at - 2)
    if int.from_bytes(_exactly(body, at, 2), "big") != len(extensions):
        raise _HelloError
    return *_extensions(extensions), whole


def _handshake(data: bytes) -> bytes:
    """The records' contents in one piece; what follows the last whole message makes it longer."""
    message, at = b"", 0
    while len(message) < 4 or len(message) < 4 + int.from_bytes(message[1:4], "big"):
        if len(data) < at + 5:
            raise _HelloCutError
        kind, major, size = struct.unpack_from(">BBxH", data, at)
        if kind != 22 or major != 3 or not 0 < size <= 16640:
            raise _HelloError
        message += data[at + 5 : at + 5 + size]
        at += 5 + size
        if message and message[0] != 1:
            raise _HelloError
    return message + data[at:]


def _exactly(body: bytes, at: int, length: int) -> bytes:
    found = body[at : at + length] if length >= 0 else b""
    if length < 0 or len(found) < length:
        raise _HelloError
    return found


def _extensions(raw: bytes) -> tuple[bytes, bool]:
    name: bytes | None = None
    encrypted, at = False, 0
    while at < len(raw):
        kind, size = struct.unpack(">HH", _exactly(raw, at, 4))
        content = _exactly(raw, at + 4, size)
        if kind == 0:
            if name is not None or size < 6 or struct.unpack_from(">HBH", content) != (size - 2, 0, size - 5):
                raise _HelloError
            name = content[5:].lower()
            if re.fullmatch(rb"[a-z0-9._-]+", name) is None:
                raise _HelloError
        encrypted |= kind == 0xFE0D
        at += 4 + size
    return name or b"", encrypted
