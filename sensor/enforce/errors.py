# SPDX-License-Identifier: Apache-2.0
"""Why an order is not obeyed (permanent) or could not be carried out yet (retried)."""

from __future__ import annotations


class Refused(Exception):  # noqa: N818 - a refusal is a decision, not a fault
    """An order this sensor does not obey; permanent.

    Args:
        reason: The word that is counted and reported, e.g. ``bad-signature``.
        detail: For people.
        subject: Whom the message was about, as far as it could be read.
        generation: Its generation, as far as it could be read.
    """

    def __init__(self, reason: str, detail: str, subject: str = "", generation: int = 0) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.subject = subject
        self.generation = generation


class NotAppliedError(Exception):
    """A valid order that is not in the kernel.

    Args:
        reason: What is reported, e.g. ``no-such-process``.
        retry: Whether it may succeed later.
    """

    def __init__(self, reason: str, *, retry: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry = retry
