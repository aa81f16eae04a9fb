# SPDX-License-Identifier: Apache-2.0
"""Why a profile is not in force; whatever was in force before stays in either case."""

from __future__ import annotations


class PolicyRefused(Exception):  # noqa: N818 - a profile is refused; nothing is broken
    """The profile cannot be enforced as it stands; permanent until somebody changes it.

    Args:
        message: What is wrong, with the value and the limit.
        cure: What to change.
    """

    retryable = False

    def __init__(self, message: str, cure: str = "") -> None:
        super().__init__(f"{message}; {cure}" if cure else message)
        self.message = message
        self.cure = cure


class NotAppliedError(PolicyRefused):
    """This node has no room for it, or the kernel refused; may succeed when something else is removed."""

    retryable = True
