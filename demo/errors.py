# SPDX-License-Identifier: Apache-2.0
"""What can go wrong in the demonstration itself, as opposed to what it finds."""

from __future__ import annotations


class DemoError(Exception):
    """The demonstration cannot go on; the text says why and what to do."""


class NotSupportedError(DemoError):
    """This machine cannot run the kernel part; the recorded trace can still be played."""
