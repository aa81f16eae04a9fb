# SPDX-License-Identifier: Apache-2.0
"""What the loader does to bytecode before the kernel sees it."""

from __future__ import annotations

import struct

from sensor.kernel.bytecode import dispatcher, patch_map_fds

INSTRUCTION = struct.Struct("<BBhi")


def load_map(register: int, fd: int, source: int = 1) -> bytes:
    """A 64-bit load of a map, or (source 0) of a plain number."""
    return INSTRUCTION.pack(0x18, source << 4 | register, 0, fd) + INSTRUCTION.pack(0, 0, 0, 0)


def test_map_descriptors_are_replaced_and_nothing_else() -> None:
    plain = load_map(3, 5, source=0)
    move = INSTRUCTION.pack(0xB7, 1, 0, 5)
    code = load_map(1, 5) + plain + move + load_map(2, 6) + load_map(1, 7)
    patched = patch_map_fds(code, {5: 50, 7: 5})
    assert patched == load_map(1, 50) + plain + move + load_map(2, 6) + load_map(1, 5)


def test_the_second_half_of_a_wide_load_is_data_even_where_it_looks_like_a_load() -> None:
    disguised = INSTRUCTION.pack(0x18, 1, 0, 0) + INSTRUCTION.pack(0x18, 1 << 4, 0, 5)
    assert patch_map_fds(disguised, {5: 50}) == disguised


def test_the_dispatcher_refers_to_its_array_and_ends() -> None:
    code = dispatcher(42)
    assert patch_map_fds(code, {42: 43}) == dispatcher(43)
    assert code[-8:] == INSTRUCTION.pack(0x95, 0, 0, 0)
