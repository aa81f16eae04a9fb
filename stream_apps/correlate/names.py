# SPDX-License-Identifier: Apache-2.0
"""Which name is behind an address, as the workload itself asked for it.

Input: ``DnsAnswer`` events. Output: for a workload, an address and an instant, the name that was *asked*
(not the end of a CNAME chain, which says less) and whether a resolver we trust said so. Shared addresses
stay apart: another workload's question names nothing here.

Names live for their TTL and a grace after it, because programs hold on to addresses; by the time of the
events, not the reader's. Failure: bounds evict the workloads and addresses unused for longest, counted; a
name that is gone costs a word in an alert, never the alert.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Network, IPv6Network

_NS_PER_S: Final = 1_000_000_000
_A: Final = 1
_AAAA: Final = 28
# A lying TTL of years must not hold an entry for ever.
_MAX_TTL_S: Final = 86_400
# Distinct servers remembered as trusted or not; a node asks a handful.
_MAX_SERVERS: Final = 4096


class KnownName(NamedTuple):
    """A name.

    Attributes:
        name: As asked.
        expires_ns: Wall ns.
        trusted: A resolver of the configuration's list said so.
    """

    name: str
    expires_ns: int
    trusted: bool


@dataclass(frozen=True, slots=True)
class NameLimits:
    """Bounds of the table.

    Attributes:
        workloads: Workloads with names at once.
        addresses: Addresses of one workload.
        grace_s: How long a name outlives its TTL.
    """

    workloads: int = 4096
    addresses: int = 512
    grace_s: int = 300


class NameTable:
    """Names by workload and address.

    Attributes:
        evicted_workloads: Workloads forgotten because of the bound.
        evicted_addresses: Addresses forgotten because of the bound.
    """

    def __init__(self, limits: NameLimits, trusted_resolvers: Sequence[str] = ()) -> None:
        self.evicted_workloads = 0
        self.evicted_addresses = 0
        self._limits = limits
        self._trusted = tuple(ip_network(each, strict=False) for each in trusted_resolvers)
        self._servers: dict[str, bool] = {}
        self._workloads: OrderedDict[str, OrderedDict[str, KnownName]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._workloads.values()))

    def retune(self, limits: NameLimits, trusted_resolvers: Sequence[str]) -> None:
        """Go over to other limits and resolvers.

        When a resolver is trusted no more, no name of before is: which of them it gave is not known, and
        they would excuse what it says. They are asked for again within their TTL.
        """
        trusted = tuple(ip_network(each, strict=False) for each in trusted_resolvers)
        if not set(self._trusted) <= set(trusted):
            for known in self._workloads.values():
                for address, name in known.items():
                    known[address] = name._replace(trusted=False)
        self._limits, self._trusted = limits, trusted
        self._servers.clear()
        while len(self._workloads) > limits.workloads:
            self._workloads.popitem(last=False)
            self.evicted_workloads += 1

    def learn(self, workload_id: str, answer: dict[str, Any], wall_ns: int) -> None:
        """Take a ``DnsAnswer``; ``wall_ns`` is when it was seen."""
        records = answer["records"]
        if answer["rcode"] or not records:
            return
        known = self._workloads.get(workload_id)
        if known is None:
            known = self._workloads[workload_id] = OrderedDict()
            if len(self._workloads) > self._limits.workloads:
                self._workloads.popitem(last=False)
                self.evicted_workloads += 1
        else:
            self._workloads.move_to_end(workload_id)
        name, trusted = answer["name"], self.is_trusted(answer["server_address"])
        grace_s = self._limits.grace_s
        for record in records:
            if record["type"] == _A or record["type"] == _AAAA:
                lifetime_s = min(max(record["ttl_s"], 0), _MAX_TTL_S) + grace_s
                address = record["data"]
                known[address] = KnownName(name, wall_ns + lifetime_s * _NS_PER_S, trusted)
                known.move_to_end(address)
        while len(known) > self._limits.addresses:
            known.popitem(last=False)
            self.evicted_addresses += 1

    def name_of(self, workload_id: str, address: str, wall_ns: int) -> KnownName | None:
        """The name behind an address at an instant; None when the workload never asked, or too long ago."""
        known = self._workloads.get(workload_id)
        if known is None:
            return None
        found = known.get(address)
        if found is None:
            return None
        if found.expires_ns < wall_ns:
            del known[address]
            return None
        return found

    def is_trusted(self, server: str) -> bool:
        """Whether a DNS server is one of the configuration's."""
        trusted = self._servers.get(server)
        if trusted is None:
            if len(self._servers) >= _MAX_SERVERS:
                self._servers.clear()
            trusted = self._servers[server] = _within(server, self._trusted)
        return trusted


def _within(address: str, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)
