# SPDX-License-Identifier: Apache-2.0
"""Running an iterator program: one pass over all tasks, or all open files, inside the kernel.

The programs write to maps and the ring, never to the iterator's own output, so reading it to the end is
what runs it. Retries are bounded; a pass that does not end raises.
"""

from __future__ import annotations

import os
from typing import Final

from sensor.kernel import bpf_syscall as bpf
from sensor.kernel.errors import KernelError
from sensor.kernel.programs import TRACE_ITER

_READ_BYTES: Final = 4096
# The kernel pauses a pass after a million objects without output; nodes have fewer open files than this.
_MAX_PAUSES: Final = 1000


def run_iterator(program_fd: int) -> None:
    """Run one pass of an iterator program.

    Raises:
        KernelError: The kernel refused, or the pass did not end.
    """
    link = bpf.link_create(program_fd, 0, TRACE_ITER, "iterator")
    try:
        iterator = bpf.iter_create(link)
        try:
            _read_to_end(iterator)
        finally:
            os.close(iterator)
    finally:
        os.close(link)


def _read_to_end(iterator: int) -> None:
    for _ in range(_MAX_PAUSES):
        try:
            if not os.read(iterator, _READ_BYTES):
                return
        except BlockingIOError:
            continue
    raise KernelError("an iterator pass over tasks did not end")
