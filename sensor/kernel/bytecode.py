# SPDX-License-Identifier: Apache-2.0
"""What the loader does to bytecode before the kernel sees it."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

# A 64-bit immediate load whose immediate is a map descriptor (BPF_PSEUDO_MAP_FD).
_LOAD_IMMEDIATE_64: Final = 0x18
_PSEUDO_MAP_FD: Final = 1
_INSTRUCTION: Final = struct.Struct("<BBhi")
_TAIL_CALL_HELPER: Final = 12


def patch_map_fds(instructions: bytes, translation: Mapping[int, int]) -> bytes:
    """Bytecode that refers to other maps: each map descriptor in the translation is replaced."""
    patched = bytearray(instructions)
    at = 0
    while at < len(patched):
        code, registers, offset, immediate = _INSTRUCTION.unpack_from(patched, at)
        if code == _LOAD_IMMEDIATE_64:
            if registers >> 4 == _PSEUDO_MAP_FD and immediate in translation:
                _INSTRUCTION.pack_into(patched, at, code, registers, offset, translation[immediate])
            at += _INSTRUCTION.size  # its second half is data
        at += _INSTRUCTION.size
    return bytes(patched)


def dispatcher(array_fd: int) -> bytes:
    """A program that tail-calls entry 0 of an array, with its own context, and else returns 0."""
    return b"".join(
        _INSTRUCTION.pack(*fields)
        for fields in (
            (_LOAD_IMMEDIATE_64, _PSEUDO_MAP_FD << 4 | 2, 0, array_fd),  # r2 = array
            (0, 0, 0, 0),
            (0xB7, 3, 0, 0),  # r3 = 0
            (0x85, 0, 0, _TAIL_CALL_HELPER),
            (0xB7, 0, 0, 0),  # r0 = 0
            (0x95, 0, 0, 0),  # exit
        )
    )
