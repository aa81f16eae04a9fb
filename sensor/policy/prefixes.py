# SPDX-License-Identifier: Apache-2.0
"""CIDRs and port ranges as the prefixes of a longest-prefix trie, exactly. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from schemas.addresses import to_mapped
from schemas.errors import SchemaError
from sensor.policy.errors import PolicyRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# A prefix: the first address (or port) and how many bits of it count.
Prefix = tuple[int, int]

_BITS: Final = 128
_MAPPED: Final[Prefix] = (0xFFFF << 32, 96)
_IPV4_BITS: Final = 32
_IPV6_ANY: Final[Prefix] = (0, 0)
_PORT_BITS: Final = 16


def cidr_prefix(text: str) -> Prefix:
    """A CIDR, or one address, over the 128 bits of the kernel (IPv4 mapped); host bits are cleared.

    Raises:
        PolicyRefused: It is none.
    """
    address, slash, length = text.partition("/")
    try:
        number = int.from_bytes(to_mapped(address))
        most = _BITS if ":" in address else _IPV4_BITS
        bits = int(length) if slash else most
    except (SchemaError, ValueError) as error:
        raise PolicyRefused(f"{text[:80]!r} is no CIDR") from error
    if not 0 <= bits <= most:
        raise PolicyRefused(f"{text[:80]!r} is no CIDR: /0 to /{most}")
    bits += _BITS - most
    return number >> (_BITS - bits) << (_BITS - bits), bits


def address_prefixes(cidrs: Iterable[str]) -> tuple[bool, bool, list[Prefix]]:
    """What CIDRs cover: whether all IPv4, whether all IPv6, and the other prefixes, smallest set, sorted.

    An IPv6 prefix around the mapped block would cover IPv4 too, which its writer did not mean: the block is
    cut out of it.
    """
    found = {cidr_prefix(text) for text in cidrs}
    any_ipv4, any_ipv6 = _MAPPED in found, _IPV6_ANY in found
    narrow: set[Prefix] = set()
    for prefix in found - {_MAPPED, _IPV6_ANY}:
        narrow.update(_without_mapped(prefix) if _contains(prefix, _MAPPED) else (prefix,))
    rest: list[Prefix] = []
    for prefix in sorted(narrow):
        covered = any_ipv4 if _contains(_MAPPED, prefix) else any_ipv6
        # Sorted by address, then shortest first: what contains a prefix is the last one kept before it.
        if not covered and not (rest and _contains(rest[-1], prefix)):
            rest.append(prefix)
    return any_ipv4, any_ipv6, rest


def port_prefixes(first: int, last: int) -> Iterator[Prefix]:
    """The prefixes of 16 bits that are exactly first..last."""
    while first <= last:
        size = first & -first or 1 << _PORT_BITS
        while size > last - first + 1:
            size >>= 1
        yield first, _PORT_BITS + 1 - size.bit_length()
        first += size


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges first..last sorted, overlapping and adjacent ones joined."""
    done: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if done and first <= done[-1][1] + 1:
            done[-1] = (done[-1][0], max(last, done[-1][1]))
        else:
            done.append((first, last))
    return done


def _contains(outer: Prefix, inner: Prefix) -> bool:
    shift = _BITS - outer[1]
    return outer[1] <= inner[1] and outer[0] >> shift == inner[0] >> shift


def _without_mapped(prefix: Prefix) -> Iterator[Prefix]:
    """The halves on the way down to the mapped block that do not hold it."""
    for bits in range(prefix[1] + 1, _MAPPED[1] + 1):
        bit = 1 << (_BITS - bits)
        yield (_MAPPED[0] >> (_BITS - bits) << (_BITS - bits)) ^ bit, bits
