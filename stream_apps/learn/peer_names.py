# SPDX-License-Identifier: Apache-2.0
"""What a destination is called in a profile: its name where DNS said one, else its address. Pure.

A name counts when a trusted resolver gave it, or when the configuration trusts nobody in particular. It is
canonical as in profiles; what is no name there stays an address. Names below a configured wildcard are that
wildcard, and no others are ever made into one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from schemas.profile.values import domain_name
from stream_apps.learn.folding import host, network

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_apps.correlate.names import KnownName, NameTable

LOOPBACK4: Final = "127.0.0.0/8"
LOOPBACK6: Final = "::1/128"
# Distinct names of all workloads of a process, some 100 bytes each.
_CACHE_ENTRIES: Final = 65_536


class PeerNames:
    """Names peers.

    Args:
        names: What DNS said, by workload.
        trust_all: Names count whoever gave them.
        wildcards: ``*.suffix`` under which names are not told apart.
        forbidden_networks: Never learned.
        forbidden_names: Likewise; ``*.suffix`` too.
    """

    def __init__(
        self,
        names: NameTable,
        *,
        trust_all: bool,
        wildcards: Sequence[str] = (),
        forbidden_networks: Sequence[str] = (),
        forbidden_names: Sequence[str] = (),
    ) -> None:
        self.names = names
        self._trust_all = trust_all
        self._forbidden_networks = [found for each in forbidden_networks if (found := network(each))]
        self._forbidden_names = tuple(forbidden_names)
        self.canonical = _canonical(tuple(wildcards))
        self._forbidden = lru_cache(maxsize=_CACHE_ENTRIES)(self._is_forbidden)

    def believed(self, known: KnownName) -> str:
        """A name that DNS gave an address, as profiles write it; empty when it is not believed, or none."""
        return self.canonical(known.name) if known.trusted or self._trust_all else ""

    def is_forbidden(self, peer: str) -> bool:
        """Whether the configuration forbids to learn a name or CIDR."""
        return bool(self._forbidden_networks or self._forbidden_names) and self._forbidden(peer)

    def _is_forbidden(self, peer: str) -> bool:
        net = network(peer) or host(peer)
        if net is not None:
            return any(each.holds(net) for each in self._forbidden_networks)
        return any(_below(peer, each) for each in self._forbidden_names)


def loopback(address: str) -> str:
    """The loopback's network, for its addresses; empty for others."""
    if address.startswith("127.") or address == "0.0.0.0":  # noqa: S104 - "this host" connects to the loopback
        return LOOPBACK4
    return LOOPBACK6 if address in {"::1", "::"} else ""


def host_cidr(address: str) -> str:
    """An address as the network of itself."""
    return f"{address}/{128 if ':' in address else 32}"


def _canonical(wildcards: tuple[str, ...]) -> Callable[[str], str]:
    @lru_cache(maxsize=_CACHE_ENTRIES)
    def canonical(name: str) -> str:
        try:
            found = domain_name(name)
        except ValueError:
            return ""
        if found.startswith("*."):
            return ""  # a question for a star is not permission to ask for everything
        return next((each for each in wildcards if found.endswith(each[1:])), found)

    return canonical


def _below(name: str, pattern: str) -> bool:
    return name == pattern or (pattern.startswith("*.") and name.endswith(pattern[1:]))
