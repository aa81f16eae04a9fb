# SPDX-License-Identifier: Apache-2.0
"""Longest-prefix match as the kernel's LPM tries do it, over the very same items. Pure; for explain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_LENGTH_BYTES: Final = 4


class Trie:
    """Built once from a rule set's items, asked with full keys.

    Args:
        items: Key (u32 prefixlen, then the data) and value.
    """

    __slots__ = ("_by_length", "_lengths")

    def __init__(self, items: Iterable[tuple[bytes, int]]) -> None:
        self._by_length: dict[int, dict[bytes, int]] = {}
        for key, value in items:
            bits = int.from_bytes(key[:_LENGTH_BYTES], "little")
            self._by_length.setdefault(bits, {})[_first_bits(key[_LENGTH_BYTES:], bits)] = value
        self._lengths = sorted(self._by_length, reverse=True)

    def longest(self, key: bytes) -> tuple[bytes, int] | None:
        """The item that matches the most bits of a key: its data (what counts of it), and value."""
        most, data = int.from_bytes(key[:_LENGTH_BYTES], "little"), key[_LENGTH_BYTES:]
        for bits in self._lengths:
            if bits <= most:
                prefix = _first_bits(data, bits)
                value = self._by_length[bits].get(prefix)
                if value is not None:
                    return prefix, value
        return None

    def get(self, key: bytes) -> int | None:
        """The value of the longest match."""
        found = self.longest(key)
        return None if found is None else found[1]


def _first_bits(data: bytes, bits: int) -> bytes:
    """The bytes that hold the first bits, what is beyond them zero."""
    whole, rest = divmod(bits, 8)
    if not rest:
        return data[:whole]
    return data[:whole] + bytes((data[whole] & (0xFF00 >> rest & 0xFF),))
