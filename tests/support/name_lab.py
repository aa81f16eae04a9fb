# SPDX-License-Identifier: Apache-2.0
"""A governed client and DNS servers under the test's hand: what was asked, answered, and learned.

Both are actors in one network namespace of their own, the client in a governed cgroup, the servers in one
that no profile governs. Addresses of the loopback stand for hosts: the policies here govern it too.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from typing import TYPE_CHECKING, Final, Self

from sensor.kernel.policy_state import ResolverKey
from tests.support import dns_messages as dns
from tests.support.dns_messages import TO_QUESTION, message, record
from tests.support.kernel_lab import Cgroup
from tests.support.kernel_watch import Actor, Watch, boot_ns
from tests.support.profile_lab import ProfileLab
from tests.support.ring_records import mapped

if TYPE_CHECKING:
    from collections.abc import Iterator

RESOLVER: Final = "127.7.0.53"
SECOND: Final = "127.7.1.53"  # listed too
STRANGER: Final = "127.7.2.53"  # a server nobody listed
RESOLVER_6: Final = "::1"
NAME: Final = "www.example.com"
_SECOND_NS: Final = 10**9


def a_record(address: str, owner: bytes = TO_QUESTION, ttl_s: int = 60) -> bytes:
    """An A or AAAA record."""
    if ":" in address:
        return record(owner, dns.AAAA, socket.inet_pton(socket.AF_INET6, address), ttl_s=ttl_s)
    return record(owner, dns.A, socket.inet_aton(address), ttl_s=ttl_s)


def framed(data: bytes) -> bytes:
    """A message as TCP carries it."""
    return struct.pack(">H", len(data)) + data


class NameLab:
    """Client, servers, and the policy of the client's cgroup."""

    def __init__(self, watch: Watch, pod: Cgroup, client: Actor, server: Actor) -> None:
        self.watch = watch
        self.pod = pod
        self.client = client
        self.server = server
        self.profiles = ProfileLab(watch.kernel)
        self.policy = watch.kernel.policy
        self.slot = self.profiles.slot_for(pod.id)
        self._peer: list[str | int] = []
        server.tell("join_network", client.tell("own_network"))
        for address in (RESOLVER, SECOND, STRANGER, RESOLVER_6):
            self._serve(address)
        for address in (RESOLVER, SECOND, RESOLVER_6):
            self.policy.set_resolver(ResolverKey(pod.id, mapped(address)))
        self.counted()

    def _serve(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.server.tell("socket", address, family, socket.SOCK_DGRAM)
        assert self.server.tell("bind", address, address, 53) is None
        self.server.tell("socket", f"tcp {address}", family, socket.SOCK_STREAM)
        self.server.tell("option", f"tcp {address}", socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        assert self.server.tell("bind", f"tcp {address}", address, 53) is None
        assert self.server.tell("listen", f"tcp {address}") is None

    def ask(
        self,
        name: str = NAME,
        *,
        via: str = RESOLVER,
        kind: int = dns.A,
        transaction: int = 0x1234,
        socket_name: str = "",
    ) -> str | None:
        """Send a question from a new socket, or from one that is there; returns the errno's name."""
        return self.send(message(name, flags=dns.QUERY, kind=kind, transaction=transaction), via, socket_name)

    def send(self, data: bytes, via: str = RESOLVER, socket_name: str = "") -> str | None:
        """Send any bytes to port 53; the server has them when this returns None."""
        name = socket_name or "asks"
        if not socket_name:
            self.new_socket("asks", via)
        sent = self.client.tell("sendbytesto", name, data.hex(), via, 53)
        if isinstance(sent, str):
            return sent
        received = self.server.tell("recvbytes", via)
        assert received[0] == data.hex()
        self._peer = received[1:]
        return None

    def new_socket(self, name: str, like: str = RESOLVER) -> None:
        """A UDP socket of the client, not connected."""
        self.client.tell(
            "socket", name, socket.AF_INET6 if ":" in like else socket.AF_INET, socket.SOCK_DGRAM
        )

    def answer(self, data: bytes, *, via: str = RESOLVER, socket_name: str = "asks") -> None:
        """Send an answer to who asked last; the client has it when this returns."""
        assert self.server.tell("sendbytesto", via, data.hex(), *self._peer) == len(data)
        assert self.client.tell("recvbytes", socket_name)[0] == data.hex()

    def resolve(self, data: bytes, name: str = NAME, *, via: str = RESOLVER, kind: int = dns.A) -> None:
        """Ask and be answered."""
        assert self.ask(name, via=via, kind=kind) is None
        self.answer(data, via=via)

    def over_tcp(self, question: bytes, answer: tuple[bytes, ...], *, via: str = RESOLVER) -> None:
        """Ask and be answered over TCP, each piece of the answer a segment."""
        family = socket.AF_INET6 if ":" in via else socket.AF_INET
        self.client.tell("socket", "stream", family, socket.SOCK_STREAM)
        assert self.client.tell("connect", "stream", via, 53) is None
        self.server.tell("accept", f"tcp {via}", "accepted")
        self.server.tell("option", "accepted", socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        asked = framed(question)
        assert self.client.tell("sendbytes", "stream", asked.hex()) == len(asked)
        assert self.server.tell("recvbytes", "accepted")[0] == asked.hex()
        for piece in answer:
            self.server.tell("sendbytes", "accepted", piece.hex())
            assert self.client.tell("recvbytes", "stream")[0] == piece.hex()

    def learned(self) -> set[str]:
        """Addresses this client may reach by name now."""
        now = boot_ns()
        return {
            _text(key.address)
            for key, value in self.policy.learned()
            if key.workload_cgroup_id == self.pod.id and value.expires_ns > now
        }

    def left_s(self, address: str) -> float:
        """How long an address counts from now on."""
        (found,) = [value for key, value in self.policy.learned() if _text(key.address) == address]
        return (found.expires_ns - boot_ns()) / _SECOND_NS

    def counted(self) -> dict[str, int]:
        """Limits and losses of DNS since the last call."""
        now = {
            name: value
            for name, value in self.watch.kernel.counters().items()
            if name.startswith(("dns_", "learned_", "name_", "scratch_", "tail_"))
        }
        before, self._counters = getattr(self, "_counters", now), now
        return {name: value - before[name] for name, value in now.items() if value > before[name]}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for key, _value in list(self.policy.learned()):
            self.policy.drop_learned(key)


def _text(address: bytes) -> str:
    if address.startswith(bytes(10) + b"\xff\xff"):
        return socket.inet_ntop(socket.AF_INET, address[12:])
    return socket.inet_ntop(socket.AF_INET6, address)


@contextlib.contextmanager
def name_lab(watch: Watch) -> Iterator[NameLab]:
    """A lab with a pod of its own."""
    path = watch.cgroup.path / f"pod-{time.monotonic_ns()}"
    path.mkdir()
    pod = Cgroup(path)
    try:
        with Actor(pod) as client, Actor(watch.cgroup) as server, NameLab(watch, pod, client, server) as lab:
            yield lab
    finally:
        pod.remove()
