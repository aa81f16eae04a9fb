# SPDX-License-Identifier: Apache-2.0
"""What can go wrong in the pure part of the stream apps. Everything here is permanent.

The same batch or the same file fails again, so the caller counts it and keeps it (dead letter), or tells a
person; nothing is retried. Retrying belongs to ``stream_apps/streaming``, which talks to the broker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_apps.config.problems import Problem

Stage = Literal["correlate", "detect", "respond", "learn"]


class StreamAppError(Exception):
    """Base of everything the pure part raises."""


class BatchError(StreamAppError):
    """A record that decodes as an EventBatch and yet cannot be used at all.

    Args:
        reason: In words, with the place.
    """

    stage: Stage = "correlate"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class ProfileError(StreamAppError):
    """A published profile that cannot be used; the one before it stays. The text names it and the reason."""


class ConfigError(StreamAppError):
    """A configuration that is refused whole; the text has one line a problem: place, reason, cure.

    Args:
        text: The lines.
        problems: The same, one by one.
    """

    def __init__(self, text: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(text)
        self.problems = tuple(problems)
