# SPDX-License-Identifier: Apache-2.0
"""What a person is told when a command cannot do what was asked: one line, and no traceback."""

from __future__ import annotations

from typing import Final

FAILED: Final = 1
MISUSED: Final = 2


class CommandError(Exception):
    """A command that did not do what was asked.

    Args:
        what: What is wrong, with the name of the thing.
        cure: What to do about it; empty when the first part says it all.
        exit_code: ``FAILED``, or ``MISUSED`` when the command line itself is wrong.
    """

    def __init__(self, what: str, cure: str = "", exit_code: int = FAILED) -> None:
        super().__init__(f"{what}; {cure}" if cure else what)
        self.exit_code = exit_code
