# SPDX-License-Identifier: Apache-2.0
"""BPF_PROG_TEST_RUN: one frame through one pinned program, its verdict and what a run costs."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import TYPE_CHECKING, Final

from sensor.kernel import bpf_syscall as bpf

if TYPE_CHECKING:
    from sensor.kernel.pins import Pins

_NUMBER: Final = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
_TEST_RUN: Final = 10
_ATTR_BYTES: Final = 168
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class ProgramRunner:
    """Runs a program that was pinned as it was loaded, not attached."""

    def __init__(self, pins: Pins, program: str) -> None:
        self._fd = bpf.obj_get(str(pins.path("programs", program)))

    def __del__(self) -> None:
        os.close(self._fd)

    def run(self, frame: bytes) -> int:
        """The program's result."""
        return self._run(frame, 1)[0]

    def time(self, frame: bytes, repeat: int = 200_000) -> int:
        """Nanoseconds a run, about 40 of them the harness."""
        return self._run(frame, repeat)[1]

    def _run(self, frame: bytes, repeat: int) -> tuple[int, int]:
        data = ctypes.create_string_buffer(frame, len(frame))
        packed = struct.pack("<IIIIQQII", self._fd, 0, len(frame), 0, ctypes.addressof(data), 0, repeat, 0)
        attr = ctypes.create_string_buffer(packed, _ATTR_BYTES)
        if _LIBC.syscall(_NUMBER, _TEST_RUN, attr, _ATTR_BYTES) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), "BPF_PROG_TEST_RUN")
        result, duration_ns = struct.unpack_from("<I28xI", attr.raw, 4)
        return result, duration_ns
