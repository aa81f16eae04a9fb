# SPDX-License-Identifier: Apache-2.0
"""What a workload is known to do: asked by detectors, answered by what was learned.

Input: a workload's id, a kind of behaviour, and its value as below. Output: True where it was seen while the
workload was learned, False where it was not *and learning is complete*, None where nobody can say (still
learning, never learned, lost events). Only False is ground for an alert.

Values: ``executable``: the path as the kernel walked it. ``destination``: ``name:port`` where a trusted
resolver gave the address that name, else ``address:port`` (``[address]:port`` for IPv6). ``listen``: the
port.
"""

from __future__ import annotations

from typing import Literal, Protocol

Kind = Literal["executable", "destination", "listen"]


class Baseline(Protocol):
    """Knows workloads."""

    def known(self, workload: str, kind: Kind, value: str) -> bool | None:
        """Whether a behaviour is known of a workload; None when that cannot be said."""
