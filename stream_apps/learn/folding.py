# SPDX-License-Identifier: Apache-2.0
"""Many addresses as few networks, never wider than allowed. Pure.

Addresses are numbers of 32 or 128 bits here, networks ``(number, prefix length)``: this runs for each new
destination of each workload, and :mod:`ipaddress` takes ten times as long.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

IPV4_BITS: Final = 32
IPV6_BITS: Final = 128
# Prefix lengths that are tried, narrow ones first: what operators give to a rack, a subnet, a site.
_STEPS4: Final = (30, 28, 26, 24, 22, 20, 18, 16, 12, 8, 0)
_STEPS6: Final = (124, 120, 112, 96, 80, 64, 56, 48, 32, 0)


class Net(NamedTuple):
    """A network.

    Attributes:
        bits: 32 or 128.
        number: Its first address.
        prefix: Prefix length.
    """

    bits: int
    number: int
    prefix: int

    def __str__(self) -> str:
        packed = self.number.to_bytes(self.bits // 8)
        family = socket.AF_INET if self.bits == IPV4_BITS else socket.AF_INET6
        return f"{socket.inet_ntop(family, packed)}/{self.prefix}"

    def at(self, prefix: int) -> Net:
        """The network of a shorter prefix around it."""
        kept = max(0, min(prefix, self.prefix))
        return Net(self.bits, self.number >> (self.bits - kept) << (self.bits - kept), kept)

    def holds(self, other: Net) -> bool:
        """Whether another network lies within."""
        return self.bits == other.bits and self.prefix <= other.prefix and other.at(self.prefix) == self


def number_of(address: str) -> int | None:
    """An address as a number; None when the text is none."""
    try:
        if ":" in address:
            return int.from_bytes(socket.inet_pton(socket.AF_INET6, address))
        return int.from_bytes(socket.inet_pton(socket.AF_INET, address))
    except (OSError, ValueError):
        return None


def host(address: str) -> Net | None:
    """The network of one address; None when the text is none."""
    number = number_of(address)
    if number is None:
        return None
    bits = IPV6_BITS if ":" in address else IPV4_BITS
    return Net(bits, number, bits)


def network(text: str) -> Net | None:
    """The network of ``address/prefix``; None when the text is none."""
    address, slash, prefix = text.partition("/")
    found = host(address)
    if found is None or not slash or not (prefix.isascii() and prefix.isdigit()):
        return None
    return found.at(int(prefix)) if int(prefix) <= found.bits else None


def fold(networks: Iterable[Net], most: int, widest: Sequence[int], never: Collection[Net] = ()) -> set[Net]:
    """Fold networks until there are at most so many, if that can be.

    Args:
        networks: Of one or both families.
        most: How many there should be.
        widest: The shortest prefixes allowed, of IPv4 and IPv6.
        never: Networks that no result may touch unless it was there before.

    Returns:
        Networks that hold all given ones; more than ``most`` when the widest allowed are.
    """
    kept = set(networks)
    steps = zip(_padded(_STEPS4, widest[0]), _padded(_STEPS6, widest[1]), strict=True)
    for step4, step6 in steps:
        if len(kept) <= most:
            break
        kept = _fold_at(kept, step4, step6, never)
    return kept


def _padded(steps: tuple[int, ...], widest: int) -> list[int]:
    """The steps that are allowed, the widest last, for both families as many."""
    allowed = [each for each in steps if each > widest] + [widest]
    return allowed + [widest] * (len(_STEPS4) + 1 - len(allowed))


def _fold_at(networks: set[Net], prefix4: int, prefix6: int, never: Collection[Net]) -> set[Net]:
    groups: dict[Net, list[Net]] = {}
    for each in networks:
        groups.setdefault(each.at(prefix4 if each.bits == IPV4_BITS else prefix6), []).append(each)
    folded = set()
    for wide, members in groups.items():
        if len(members) == 1 or any(wide.holds(each) or each.holds(wide) for each in never):
            folded.update(members)
        else:
            folded.add(wide)
    return folded
