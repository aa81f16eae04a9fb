# SPDX-License-Identifier: Apache-2.0
"""A message as it came, whichever client read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.letters import retries_of

if TYPE_CHECKING:
    from schemas.letters import Headers


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Attributes:
        topic: Topic it is from.
        partition: Its partition.
        offset: Its offset.
        key: Key, None without one.
        value: Value, None for a tombstone.
        headers: Headers, as far as they are kept.
        timestamp_ns: Wall time of the message, to the millisecond; 0 when it was not asked for.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ns: int = 0
    headers: Headers = ()

    @property
    def retries(self) -> int:
        """How many times a person sent it again."""
        return retries_of(self.headers) if self.headers else 0

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"{self.topic}/{self.partition}@{self.offset}"
