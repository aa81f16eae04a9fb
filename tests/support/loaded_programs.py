# SPDX-License-Identifier: Apache-2.0
"""What the kernel says about the programs loaded into it: name, and how long its verifier took."""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_NUMBER: Final = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
_PROG_GET_NEXT_ID: Final = 11
_PROG_GET_FD_BY_ID: Final = 13
_OBJ_GET_INFO_BY_FD: Final = 15
_ATTR_BYTES: Final = 168
_INFO_BYTES: Final = 256
_NAME: Final = slice(64, 80)  # of struct bpf_prog_info
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class LoadedProgram:
    """One program in the kernel; its name is cut to 15 bytes."""

    id: int
    name: str
    verified_instructions: int


def _bpf(command: int, layout: str, *values: int) -> tuple[int, bytes]:
    attr = ctypes.create_string_buffer(struct.pack(layout, *values), _ATTR_BYTES)
    return _LIBC.syscall(_NUMBER, command, attr, _ATTR_BYTES), attr.raw


def loaded_programs() -> list[LoadedProgram]:
    """All programs of this kernel, by id; one that goes away meanwhile is left out."""
    found: list[LoadedProgram] = []
    last = 0
    while True:
        result, attr = _bpf(_PROG_GET_NEXT_ID, "<III", last, 0, 0)
        if result < 0:
            return found
        (last,) = struct.unpack_from("<I", attr, 4)
        descriptor, _ = _bpf(_PROG_GET_FD_BY_ID, "<I", last)
        if descriptor >= 0:
            try:
                found.append(_describe(last, descriptor))
            finally:
                os.close(descriptor)


def _describe(program_id: int, descriptor: int) -> LoadedProgram:
    info = ctypes.create_string_buffer(_INFO_BYTES)
    result, _ = _bpf(_OBJ_GET_INFO_BY_FD, "<IIQ", descriptor, _INFO_BYTES, ctypes.addressof(info))
    if result < 0:
        raise OSError(ctypes.get_errno(), "BPF_OBJ_GET_INFO_BY_FD")
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii").splitlines()
    values = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return LoadedProgram(program_id, info.raw[_NAME].rstrip(b"\0").decode(), int(values["verified_insns"]))
