# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a profile: every problem, each with its place, its value and its cure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from schemas.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Sequence

# A file with more is wrong in one way, said many times.
MAX_PROBLEMS: Final = 20


class ProfileError(SchemaError):
    """A profile is refused whole. Permanent.

    Args:
        problems: One line each.
        more: How many there are besides.
    """

    def __init__(self, problems: Sequence[str], more: int = 0) -> None:
        shown = list(problems[:MAX_PROBLEMS])
        left = more + len(problems) - len(shown)
        if left:
            shown.append(f"and {left} more problems")
        super().__init__("\n".join(shown))
        self.problems = tuple(problems)
        self.more = more
