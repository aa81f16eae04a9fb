# SPDX-License-Identifier: Apache-2.0
"""The running kernel's types, from /sys/kernel/btf/vmlinux, in pure Python.

Only the loader child uses it (the file has megabytes). Input: BTF bytes. Output: byte offsets of struct
members and ids of functions and typedefs. A name that is not there is a KeyError, so that a caller can
try the name another kernel has.

Format: https://docs.kernel.org/bpf/btf.html
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sensor.kernel.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Iterator

VMLINUX: Final = Path("/sys/kernel/btf/vmlinux")

_MAGIC: Final = 0xEB9F
_STRUCT, _UNION, _TYPEDEF, _FUNC = 4, 5, 8, 12
_QUALIFIERS: Final = frozenset({8, 9, 10, 11, 18})  # typedef, volatile, const, restrict, type_tag
# Bytes after the common 12: fixed part and part per vlen, by kind.
_EXTRA: Final = {
    1: (4, 0),
    2: (0, 0),
    3: (12, 0),
    4: (0, 12),
    5: (0, 12),
    6: (0, 8),
    7: (0, 0),
    8: (0, 0),
    9: (0, 0),
    10: (0, 0),
    11: (0, 0),
    12: (0, 0),
    13: (0, 8),
    14: (4, 0),
    15: (0, 12),
    16: (0, 0),
    17: (4, 0),
    18: (0, 0),
    19: (0, 12),
}
_BITS_PER_BYTE: Final = 8
_BIT_OFFSET_MASK: Final = 0xFFFFFF
_triple: Final = struct.Struct("<III").unpack_from


class Btf:
    """An index over one BTF blob.

    Args:
        data: The whole file.

    Raises:
        KernelError: Not BTF, or of a kind this reader does not know.
    """

    def __init__(self, data: bytes) -> None:
        magic, _, _, header, types, types_bytes, strings, _ = struct.unpack_from("<HBBIIIII", data)
        if magic != _MAGIC:
            raise KernelError("not little-endian BTF", "the sensor supports x86_64 and aarch64")
        self._data = data
        self._strings = header + strings
        self._places = [0]  # type 0 is void
        self._named: dict[tuple[int, int], int] = {}
        self._index(header + types, header + types + types_bytes)

    @classmethod
    def of_running_kernel(cls) -> Btf:
        """Read the running kernel's types.

        Raises:
            KernelError: The kernel gives none.
        """
        try:
            return cls(VMLINUX.read_bytes())
        except OSError as error:
            cure = "needs a kernel with CONFIG_DEBUG_INFO_BTF=y, as distributions build them"
            raise KernelError(f"{VMLINUX}: {error.strerror}", cure) from error

    def _index(self, at: int, end: int) -> None:
        wanted = (_STRUCT, _UNION, _TYPEDEF, _FUNC)
        places, named, data = self._places, self._named, self._data
        while at < end:
            name, info, _ = _triple(data, at)
            kind = info >> 24 & 31
            if kind in wanted and name:
                named.setdefault((kind, name), len(places))
            places.append(at)
            try:
                fixed, each = _EXTRA[kind]
            except KeyError as error:
                raise KernelError(f"BTF kind {kind} is newer than this reader") from error
            at += 12 + fixed + each * (info & 0xFFFF)

    def _text(self, offset: int) -> bytes:
        start = self._strings + offset
        return self._data[start : self._data.index(b"\0", start)]

    def _find(self, name: str, kinds: tuple[int, ...]) -> int:
        # Strings are stored once, so the first exact one is the one every type uses.
        at = self._data.find(b"\0" + name.encode() + b"\0", self._strings)
        for kind in kinds:
            if at >= 0 and (kind, at + 1 - self._strings) in self._named:
                return self._named[kind, at + 1 - self._strings]
        raise KeyError(name)

    def function_id(self, name: str) -> int:
        """The type id of a function: what iterators attach to."""
        return self._find(name, (_FUNC,))

    def typedef_id(self, name: str) -> int:
        """The type id of a typedef: what tp_btf programs attach to."""
        return self._find(name, (_TYPEDEF,))

    def offset(self, structure: str, path: str) -> int:
        """Byte offset of a member, through named and anonymous members: ``offset("file", "f_path.mnt")``.

        Raises:
            KeyError: No such struct or member in this kernel.
        """
        type_id, bits = self._find(structure, (_STRUCT, _UNION)), 0
        for wanted in path.split("."):
            for name, member_bits, member_type in self._members(type_id, 0):
                if name == wanted.encode():
                    bits += member_bits
                    type_id = self._unqualified(member_type)
                    break
            else:
                raise KeyError(f"{structure}.{path}")
        if bits % _BITS_PER_BYTE:
            raise KeyError(f"{structure}.{path} is a bit field")
        return bits // _BITS_PER_BYTE

    def _members(self, type_id: int, base: int) -> Iterator[tuple[bytes, int, int]]:
        at = self._places[type_id]
        _, info, _ = _triple(self._data, at)
        for number in range(info & 0xFFFF):
            name, member_type, place = _triple(self._data, at + 12 + 12 * number)
            bits = base + (place & _BIT_OFFSET_MASK if info >> 31 else place)
            if name:
                yield self._text(name), bits, member_type
            elif self._kind(member_type) in (_STRUCT, _UNION):
                yield from self._members(member_type, bits)

    def _kind(self, type_id: int) -> int:
        info: int = _triple(self._data, self._places[type_id])[1]
        return info >> 24 & 31

    def _unqualified(self, type_id: int) -> int:
        while type_id and self._kind(type_id) in _QUALIFIERS:
            type_id = _triple(self._data, self._places[type_id])[2]
        return type_id
