# SPDX-License-Identifier: Apache-2.0
"""What is said about dead letters in the headers of Kafka messages.

A message that is sent again carries :data:`RETRIES`, so that a letter about it knows how often. Beside a
letter that was retried stands a message without a value on the same topic, which carries :data:`RETRIED`: the
topic is not compacted, so a mark is one more message. Headers are anybody's to write: what does not parse
counts as none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

RETRIES: Final = "nsp-retries"
"""How many times the message was sent again, this time included. Decimal."""
RETRIED: Final = "nsp-retried"
"""``partition/offset`` of the letter that was retried."""

# As many as a message of ours could have, several times over; a letter has room for these beside its value.
MAX_HEADERS: Final = 32
MAX_HEADER_BYTES: Final = 1024
_MOST_DIGITS: Final = 6

Headers = tuple[tuple[str, bytes | None], ...]


def bounded(headers: Iterable[tuple[str, bytes | None]] | None) -> Headers:
    """The headers of a message as they are kept: so many, each so long."""
    kept: list[tuple[str, bytes | None]] = []
    for key, value in headers or ():
        if len(kept) == MAX_HEADERS:
            break
        kept.append((key[:MAX_HEADER_BYTES], value[:MAX_HEADER_BYTES] if value is not None else None))
    return tuple(kept)


def retries_of(headers: Iterable[tuple[str, bytes | None]]) -> int:
    """How many times a message was sent again."""
    for key, value in headers:
        if key == RETRIES and value and value.isdigit() and len(value) <= _MOST_DIGITS:
            return int(value)
    return 0


def with_retries(headers: Iterable[tuple[str, bytes | None]], count: int) -> Headers:
    """The same headers, with another count."""
    return (*(each for each in headers if each[0] != RETRIES), (RETRIES, str(count).encode()))
