# SPDX-License-Identifier: Apache-2.0
"""How often Python's garbage collector looks at what a pipeline holds.

Decoding makes millions of dicts a second that die by reference count; with the interpreter's default a
collection follows each 700 that live, and the oldest ones walk tables of hundreds of megabytes to find
nothing. Cycles are rare here (an exception and its frame), so it may look seldom.
"""

from __future__ import annotations

import gc
from typing import Final

# New containers between two collections: some 20 MB of events, walked in 4 ms.
_THRESHOLD: Final = 100_000


def spare_the_collector() -> None:
    """After set-up, before the first event: what lives now lives for ever, what comes is looked at seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_THRESHOLD)
