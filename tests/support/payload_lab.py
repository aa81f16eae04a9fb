# SPDX-License-Identifier: Apache-2.0
"""A workload whose payloads are judged, and who says things in it."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING, Final, Self

from tests.support import payload_actor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.kernel_lab import Cgroup

HERE: Final = "127.0.0.1"


def client_hello(name: str | None, *, protocols: Sequence[str] = ()) -> bytes:
    """What a real TLS client says first; many protocols make it long."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(list(protocols))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake without a server")


def in_records(hello: bytes, size: int) -> bytes:
    """The same hello in many records."""
    body = hello[5:]
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(hello[:3] + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def with_extension(hello: bytes, kind: int, content: bytes) -> bytes:
    """The same hello with one extension more, at its end."""
    added = kind.to_bytes(2, "big") + len(content).to_bytes(2, "big") + content
    at = 5 + 4 + 34
    at += 1 + hello[at]
    at += 2 + int.from_bytes(hello[at : at + 2], "big")
    at += 1 + hello[at]
    extensions = hello[at + 2 :] + added
    body = hello[9:at] + len(extensions).to_bytes(2, "big") + extensions
    message = b"\1" + len(body).to_bytes(3, "big") + body
    return hello[:3] + len(message).to_bytes(2, "big") + message


def one_by_one(data: bytes) -> list[bytes]:
    """Every byte a write of its own."""
    return [data[at : at + 1] for at in range(len(data))]


class Talker:
    """tests/support/payload_actor.py in a cgroup."""

    def __init__(self, cgroup: Cgroup) -> None:
        self._process = subprocess.Popen(
            [sys.executable, payload_actor.__file__, str(cgroup.path / "cgroup.procs")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin
        assert self._process.stdout
        self._commands, self._answers = self._process.stdin, self._process.stdout
        assert self._answers.readline() == "ready\n"

    @property
    def tgid(self) -> int:
        """Who speaks."""
        return self._process.pid

    def arrived(self, cases: Sequence[tuple[bool, Sequence[bytes]]], address: str = HERE) -> list[int]:
        """How many bytes of each connection came through; those expected whole are waited for."""
        command = [address, [[whole, [piece.hex() for piece in pieces]] for whole, pieces in cases]]
        self._commands.write(json.dumps(command) + "\n")
        self._commands.flush()
        found = json.loads(self._answers.readline())
        return [int(each) for each in found]

    def passes(self, *pieces: bytes, expected: bool = True, address: str = HERE) -> bool:
        """Whether all of it came through on one connection."""
        (count,) = self.arrived([(expected, pieces)], address)
        return count == sum(map(len, pieces))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._commands.close()
        self._answers.close()
