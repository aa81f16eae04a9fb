# SPDX-License-Identifier: Apache-2.0
"""What the checks of this folder say and how they fail.

Input: the steps' results. Output: lines behind a mark, so that a console log can be searched. The first step
that fails ends the run: what follows would be told of a kernel part in a state nobody meant.
"""

from __future__ import annotations

import sys
from typing import Final

MARK: Final = "nsp-smoke:"


class SmokeError(Exception):
    """A step did not do what it should; the message says which."""


def say(text: str) -> None:
    """One line of the result."""
    sys.stdout.write(f"{MARK} {text}\n")
    sys.stdout.flush()


def check(condition: bool, step: str) -> None:
    """Tell of a step that worked, or fail."""
    if not condition:
        raise SmokeError(step)
    say(f"  ok    {step}")


def expect(found: object, wanted: object, step: str) -> None:
    """The same for a result, which is told when it is another one."""
    if found != wanted:
        raise SmokeError(f"{step}: {found!r}, not {wanted!r}")
    say(f"  ok    {step}")
