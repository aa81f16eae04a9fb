# SPDX-License-Identifier: Apache-2.0
"""Sets of networks, asked for each event: an address is a number, and a number is found by bisection.

Input: networks as a person writes them; then addresses as events have them. Output: whether one is inside.
Failure: text that is no address is in no network.
"""

from __future__ import annotations

import socket
from bisect import bisect_right
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

_Network = TypeVar("_Network", IPv4Network, IPv6Network)

# What is not the internet: private use (RFC 1918, 4193), shared (6598), loopback, link-local, "this host",
# documentation is left out on purpose (nobody routes it, and tests talk to it), multicast and above.
NOT_PUBLIC: Final = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.168.0.0/16", "224.0.0.0/3", "::/127", "fc00::/7", "fe80::/10", "ff00::/8",
)  # fmt: skip


# Addresses whose answer is kept: the endpoints of some thousand workloads, 6 MB.
_REMEMBERED: Final = 65_536


class Networks:
    """Networks of both families."""

    def __init__(self, networks: Iterable[str]) -> None:
        parsed = [ip_network(each, strict=False) for each in networks]
        self._first4, self._last4 = _ranges([each for each in parsed if isinstance(each, IPv4Network)])
        self._first6, self._last6 = _ranges([each for each in parsed if not isinstance(each, IPv4Network)])

        self._known: dict[str, bool] = {}

    def __contains__(self, address: str) -> bool:
        known = self._known.get(address)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = self._known[address] = self._holds(address)
        return known

    def _holds(self, address: str) -> bool:
        try:
            if ":" in address:
                number, first, last = _v6(address), self._first6, self._last6
            else:
                number, first, last = _v4(address), self._first4, self._last4
        except OSError:
            return False
        place = bisect_right(first, number) - 1
        return place >= 0 and number <= last[place]


def _v4(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET, address)


def _v6(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, address.partition("%")[0])


def _ranges(networks: list[_Network]) -> tuple[list[bytes], list[bytes]]:
    merged = sorted(collapse_addresses(networks))
    return [each[0].packed for each in merged], [each[-1].packed for each in merged]


# Shared by the detectors that ask whether an address is outside: each address is worked out once.
INSIDE: Final = Networks(NOT_PUBLIC)
