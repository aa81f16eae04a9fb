# SPDX-License-Identifier: Apache-2.0
"""Running an iterator program: one pass over all tasks, or all open files, inside the kernel.

Reading the iterator to its end is what runs it. The inventory's programs write their events to the ring, and
one byte for each to the iterator: a read of n bytes ends after n events, and whoever reads can make room in
the ring before the next. The others write nothing. Pauses are bounded; a pass that does not end raises.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

from sensor.kernel import bpf_syscall as bpf
from sensor.kernel.errors import KernelError
from sensor.kernel.programs import TRACE_ITER

if TYPE_CHECKING:
    from collections.abc import Iterator

# Less than the kernel's own buffer of 32 KB: what did not fit there would be reported twice.
_MAX_READ_BYTES: Final = 16384
# The kernel pauses a pass after a million objects without output; nodes have fewer open files than this.
_MAX_PAUSES: Final = 1000


def run_iterator(program_fd: int) -> None:
    """Run one pass of an iterator program.

    Raises:
        KernelError: The kernel refused, or the pass did not end.
    """
    for _ in run_in_parts(program_fd, _MAX_READ_BYTES):
        pass


def run_in_parts(program_fd: int, events: int) -> Iterator[None]:
    """Run one pass of an iterator program, and pause after every so many of its events.

    Raises:
        KernelError: The kernel refused, or the pass did not end.
    """
    with contextlib.ExitStack() as stack:
        link = bpf.link_create(program_fd, 0, TRACE_ITER, "iterator")
        stack.callback(os.close, link)
        iterator = bpf.iter_create(link)
        stack.callback(os.close, iterator)
        pauses = 0
        while pauses < _MAX_PAUSES:
            try:
                if not os.read(iterator, min(events, _MAX_READ_BYTES)):
                    return
            except BlockingIOError:
                pauses += 1
                continue
            yield
    raise KernelError("an iterator pass over tasks did not end")
