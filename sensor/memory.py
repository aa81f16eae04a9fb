# SPDX-License-Identifier: Apache-2.0
"""Keeping the long-lived process small: the C allocator's habits and the garbage collector's.

Nothing here changes what the sensor does. Where the C library is not glibc the allocator part does nothing.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

# Cycles are rare here (exceptions, mostly), and a burst's memory may stay a while.
TIDY_EVERY_S: Final = 60.0

# mallopt(3). Each of a dozen threads would get an arena of its own that never shrinks again; and after the
# first large block was freed, blocks of that size would come from the heap and leave holes there.
_M_ARENA_MAX: Final = -8
_M_MMAP_THRESHOLD: Final = -3
_ARENAS: Final = 2
_MMAP_THRESHOLD_BYTES: Final = 128 * 1024


@contextmanager
def left_out(*names: str) -> Iterator[None]:
    """Make optional modules look absent while something that would import them is imported.

    The sensor shares its environment with parts that need them; a process that never uses them should not
    pay megabytes because a library asks whether they are there.
    """
    absent = [name for name in names if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]  # how Python says: not importable
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def bound_arenas() -> None:
    """Set the allocator's bounds; before threads start."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)
        mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)


def settle() -> None:
    """After start: what lives now lives for ever, so the collector need not look at it again.

    The drain makes half a million dicts a second that all die by reference count; the collector would
    walk the process table each few thousand of them and find nothing. :func:`tidy` runs it instead.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    _trim()


def tidy() -> None:
    """Collect what reference counts cannot, and give free memory back to the system."""
    gc.collect()
    _trim()


def _trim() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
