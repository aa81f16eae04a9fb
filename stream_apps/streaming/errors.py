# SPDX-License-Identifier: Apache-2.0
"""What ends a stream app, in words for the person who has to cure it.

A broker that is away is none of these: every client here waits for it. Nor is a message that cannot be
used: it becomes a dead letter.
"""

from __future__ import annotations


class StreamError(Exception):
    """Base: the process ends with exit status 1 and this text; it may be started again."""


class StartError(StreamError):
    """It cannot start: something it needs is missing or wrong."""


class OutputLostError(StreamError):
    """The broker refused an output for good. Its input is not committed: a restart reads it again."""


class StoppedError(StreamError):
    """It was told to stop while it waited for the broker."""
