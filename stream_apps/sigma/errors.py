# SPDX-License-Identifier: Apache-2.0
"""A rule that cannot be used, and why."""

from __future__ import annotations

from stream_apps.errors import StreamAppError

Place = tuple[str | int, ...]


class RuleRefusedError(StreamAppError):
    """A rule is refused; rules before it stay. Permanent: the same text is refused again.

    Args:
        reason: Why, for the person who wrote it.
        place: Where in the document: keys and positions from its root.
    """

    def __init__(self, reason: str, place: Place = ()) -> None:
        super().__init__(reason)
        self.place = place


class OtherSourceError(RuleRefusedError):
    """A rule for logs that are not ours: nobody's fault."""


class MissingRuleError(RuleRefusedError):
    """A correlation of a rule that is not loaded; it may come."""
