# SPDX-License-Identifier: Apache-2.0
"""With whom one program speaks one protocol in one direction, in a bounded number of keys. Pure.

Input: keys of EGRESS or INGRESS behaviours, whose peer is a name or a CIDR. Output: which key stands for
which. Too many ephemeral ports become their range (a server answering datagrams, passive FTP), too many
addresses networks, as wide as is allowed; what is then still too much is refused by :meth:`Peers.is_full`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from stream_apps.learn.folding import IPV4_BITS, IPV6_BITS, Net, fold, network

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from stream_apps.learn.behaviour import Key

# Linux's default net.ipv4.ip_local_port_range, to the end: clients' own ports, which nobody lists.
EPHEMERAL: Final = (32_768, 65_535)
# Different ports beyond this are no list a person would check.
MAX_PORTS: Final = 64

_NONE: Final[Mapping[int, dict[int, Key]]] = {}


@dataclass(frozen=True, slots=True)
class PeerLimits:
    """Bounds.

    Attributes:
        addresses: Addresses or networks per port.
        names: Names per port.
        ephemeral_ports: Ephemeral ports one by one.
        widest: Shortest prefix of IPv4 and IPv6 that addresses may be folded into.
        widest_sources: The same of those that come in.
    """

    addresses: int = 32
    names: int = 256
    ephemeral_ports: int = 16
    widest: tuple[int, int] = (24, 64)
    widest_sources: tuple[int, int] = (0, 0)


@dataclass(slots=True)
class _Port:
    """Peers of one port or range of ports."""

    names: dict[str, Key] = field(default_factory=dict)
    nets: dict[Net, Key] = field(default_factory=dict)
    # The same by family and by how many bits of an address do not matter: found without parsing a text.
    tables: dict[int, dict[int, dict[int, Key]]] = field(default_factory=dict)

    def add(self, key: Key) -> None:
        """A key is there from now on."""
        net = network(key.peer)
        if net is None:
            self.names[key.peer] = key
        else:
            self.nets[net] = key
            rest = net.bits - net.prefix
            self.tables.setdefault(net.bits, {}).setdefault(rest, {})[net.number >> rest] = key

    def rebuild(self) -> None:
        """The tables again, after nets were taken away."""
        keys = list(self.nets.values())
        self.nets, self.tables = {}, {}
        for key in keys:
            self.add(key)


class Peers:
    """The keys of one program, protocol and direction."""

    __slots__ = ("_ephemeral", "_folds_ports", "_limits", "_ports", "_widest")

    def __init__(self, limits: PeerLimits, *, ingress: bool) -> None:
        self._limits = limits
        self._widest = limits.widest_sources if ingress else limits.widest
        self._ports: dict[int, _Port] = {}
        self._ephemeral: set[int] = set()
        self._folds_ports = False

    def ports_of(self, port: int) -> tuple[int, int]:
        """A port, or the range of ports that has taken it in."""
        return EPHEMERAL if self._folds_ports and port >= EPHEMERAL[0] else (port, port)

    def find(self, port: int, peer: str, number: int | None) -> Key | None:
        """The key that a peer has there, or that has taken it in.

        Args:
            port: The port.
            peer: Its name or address.
            number: Its address as a number; None for a name.
        """
        at = self._ports.get(EPHEMERAL[0] if self._folds_ports and port >= EPHEMERAL[0] else port)
        if at is None:
            return None
        if number is None:
            return at.names.get(peer)
        for rest, table in at.tables.get(IPV6_BITS if ":" in peer else IPV4_BITS, _NONE).items():
            found = table.get(number >> rest)
            if found is not None:
                return found
        return None

    def is_full(self, port: int, *, named: bool) -> bool:
        """Whether a peer that is not there would be one too many."""
        at = self._ports.get(self.ports_of(port)[0])
        if at is None:
            return len(self._ports) >= MAX_PORTS + self._limits.ephemeral_ports
        if named:
            return len(at.names) >= self._limits.names
        return len(at.nets) > self._limits.addresses

    def enter(self, key: Key) -> None:
        """A key is there from now on; its port is one of :meth:`ports_of`."""
        self._ports.setdefault(key.port, _Port()).add(key)
        if (key.port, key.last_port) == EPHEMERAL:
            self._folds_ports = True
        elif key.port >= EPHEMERAL[0]:
            self._ephemeral.add(key.port)

    def fold(self, never: Callable[[], Collection[Net]]) -> Iterator[tuple[Key, list[Key]]]:
        """Fold what is too many: keys that are new or wider, each with those it takes in."""
        if len(self._ephemeral) > self._limits.ephemeral_ports:
            yield from self._fold_ports()
        for at in list(self._ports.values()):
            if len(at.nets) > self._limits.addresses:
                yield from self._fold_addresses(at, never())

    def _fold_ports(self) -> Iterator[tuple[Key, list[Key]]]:
        moved: dict[Key, list[Key]] = {}
        for port in self._ephemeral:
            at = self._ports.pop(port)
            for key in (*at.names.values(), *at.nets.values()):
                wide = key._replace(port=EPHEMERAL[0], last_port=EPHEMERAL[1])
                moved.setdefault(wide, []).append(key)
        self._ephemeral.clear()
        for key in moved:
            self.enter(key)
        yield from moved.items()

    def _fold_addresses(self, at: _Port, never: Collection[Net]) -> Iterator[tuple[Key, list[Key]]]:
        # To half of what is allowed, so that it is not done again for each further address.
        folded = fold(at.nets, self._limits.addresses // 2, self._widest, never)
        taken: dict[Net, list[Net]] = {each: [] for each in folded if each not in at.nets}
        prefixes = {each.prefix for each in taken}
        for net in at.nets:
            around = (net.at(each) for each in prefixes if each <= net.prefix)
            wide = next((each for each in around if each in taken), None)
            if wide is not None:
                taken[wide].append(net)
        for wide, narrow in taken.items():
            keys = [at.nets.pop(each) for each in narrow]
            at.nets[wide] = keys[0]._replace(peer=str(wide))
            yield at.nets[wide], keys
        at.rebuild()
