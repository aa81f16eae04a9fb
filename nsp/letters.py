# SPDX-License-Identifier: Apache-2.0
"""Dead letters as ``nsp dead-letter`` works with them: read, chosen, and what is said about them.

Input: messages of ``nsp.dead-letter``: letters, and marks of letters that were retried. All that is in a
letter is hostile: it is what could not be used. Output: :class:`Letter` in the order of the topic. Failure:
what is neither is counted.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from schemas.codec import decode, decode_as
from schemas.documents import to_document
from schemas.errors import SchemaError
from schemas.letters import RETRIED, retries_of
from schemas.topics import (
    DEAD_LETTER,
    DEAD_LETTER_KEY_MAX_BYTES,
    DEAD_LETTER_VALUE_MAX_BYTES,
    PROFILES,
    RULES,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from schemas.letters import Headers

_NS_PER_S: Final = 1_000_000_000
# Of a value that is shown as text; --output json has it whole.
_SHOWN: Final = 2000
_SHOWN_BYTES: Final = 256
_NAME: Final = 249  # Kafka's longest topic name

# By stage and words of the reason; the first that fits.
_CURES: Final = (
    ("decode", "never released", "update the stream apps, the sensor is newer; then retry"),
    ("decode", "empty message", "nothing is in it: find who writes to the topic"),
    ("decode", "single-object", "no message of ours: find who writes to the topic, and let only sensors"),
    ("decode", "", "it was changed on its way: find where; a retry fails in the same way"),
    ("", "", "update the stream apps, or switch off the detector that the reason names; then retry"),
)
_CURES_BY_TOPIC: Final = {
    RULES.name: "the rule before stays in force: change it (`nsp rules lint`) and push it again",
    PROFILES.name: "the profile before stays in force: change it and `nsp apply` it again",
}


class Place(NamedTuple):
    """Where a letter is on ``nsp.dead-letter``; people write ``0/17``."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class Letter:
    """One letter.

    Attributes:
        place: Where it is.
        record: The ``DeadLetter`` record.
        headers: Headers of the message it is about.
    """

    place: Place
    record: dict[str, Any]
    headers: Headers

    @property
    def retries(self) -> int:
        """How many times its message had been sent again when it failed."""
        return retries_of(self.headers)

    @property
    def is_cut(self) -> bool:
        """Whether the letter has only the beginning of the value."""
        value: bytes | None = self.record["value"]
        length: int = self.record["value_bytes"]
        if value is None:
            return False
        return length > len(value) if length >= 0 else len(value) >= DEAD_LETTER_VALUE_MAX_BYTES

    def is_about(self, key: bytes | None, value: bytes | None) -> bool:
        """Whether this is its message."""
        mine: bytes | None = self.record["value"]
        if self.is_cut and value is not None and mine is not None:
            value = value[: len(mine)]
        my_key: bytes | None = self.record["key"]
        if key is not None and my_key is not None:
            key = key[:DEAD_LETTER_KEY_MAX_BYTES]
        return (key, value) == (my_key, mine)

    @property
    def origin(self) -> str:
        """Where its message was."""
        return f"{escaped(self.record['topic'])}/{self.record['partition']}@{self.record['offset']}"

    @property
    def cure(self) -> str:
        """What to do about it."""
        by_topic = _CURES_BY_TOPIC.get(self.record["topic"])
        if by_topic:
            return by_topic
        return next(
            cure
            for stage, words, cure in _CURES
            if stage in ("", self.record["stage"]) and words in self.record["reason"]
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters.

    Attributes:
        places: Only these; none: all.
        reason: Pattern that the reason must have somewhere; upper and lower case are the same.
        topic: Source topic.
        stage: Stage that failed.
        since_ns: Failed since then, wall ns.
    """

    places: frozenset[Place] = frozenset()
    reason: str = ""
    topic: str = ""
    stage: str = ""
    since_ns: int = 0

    def has(self, letter: Letter) -> bool:
        """Whether a letter is wanted."""
        record = letter.record
        return (
            (not self.places or letter.place in self.places)
            and (not self.topic or record["topic"] == self.topic)
            and (not self.stage or record["stage"] == self.stage)
            and record["failed_at_ns"] >= self.since_ns
            and (not self.reason or fnmatchcase(record["reason"].lower(), f"*{self.reason.lower()}*"))
        )


@dataclass(slots=True)
class Found:
    """What was read.

    Attributes:
        letters: The newest of those wanted.
        retried: How often each letter was retried, by its place.
        left_out: Wanted ones that are older.
        unreadable: Messages that are no letters.
    """

    letters: deque[Letter]
    retried: dict[str, int]
    left_out: int = 0
    unreadable: int = 0


def read(messages: Iterable[Any], wanted: Wanted, most: int) -> Found:
    """Read letters and marks from Kafka's messages; keeps the newest ``most``."""
    found = Found(deque(maxlen=most), {})
    for message in messages:
        if message.value() is None:
            marked = dict(message.headers() or ()).get(RETRIED)
            if marked is None:
                found.unreadable += 1
            else:
                place = marked.decode(errors="replace")
                found.retried[place] = found.retried.get(place, 0) + 1
            continue
        try:
            record = decode_as(DEAD_LETTER.value, message.value())
        except SchemaError:
            found.unreadable += 1
            continue
        headers = tuple((each["key"], each["value"]) for each in record["headers"])
        letter = Letter(Place(message.partition(), message.offset()), record, headers)
        if wanted.has(letter):
            found.left_out += len(found.letters) == most
            found.letters.append(letter)
    return found


def as_json(letter: Letter, retried: int) -> dict[str, Any]:
    """For programs."""
    record = letter.record
    return {
        "id": str(letter.place),
        "topic": record["topic"],
        "partition": record["partition"],
        "offset": record["offset"],
        "key": None if record["key"] is None else record["key"].decode(errors="backslashreplace"),
        "stage": record["stage"],
        "reason": record["reason"],
        "cure": letter.cure,
        "failed_at": _when(record["failed_at_ns"]),
        "retries": letter.retries,
        "retried": retried,
        "cut": letter.is_cut,
        "headers": to_document(record["headers"]),
        "value": _decoded(record["value"]),
    }


def as_text(letter: Letter, retried: int) -> Iterator[str]:
    """For people: nothing in it moves a cursor or breaks a line."""
    record = letter.record
    key = "no key" if record["key"] is None else f"key {_bytes(record['key'])}"
    state = f", retried {retried} times since" if retried else ""
    tries = f", after {letter.retries} retries" if letter.retries else ""
    when = _when(record["failed_at_ns"])
    yield f"{letter.place}  {when}  {letter.origin}  {escaped(record['stage'])}{tries}{state}"
    for number, line in enumerate(record["reason"].split("\n")):
        yield f"    {'reason' if not number else '      '}  {escaped(line)}"
    yield f"    cure    {letter.cure}"
    yield f"    {key}"
    value = _decoded(record["value"])
    if isinstance(value, dict) and "undecodable" in value:
        yield f"    value   {value['bytes']} bytes: {_bytes(record['value'])}"
    else:
        text = json.dumps(value)
        yield f"    value   {text[:_SHOWN]}{'…' if len(text) > _SHOWN else ''}"


def escaped(text: str) -> str:
    """Hostile text for one line of a terminal."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _decoded(value: bytes | None) -> Any:
    """A value as far as it can be read."""
    if value is None:
        return None
    try:
        name, record = decode(value)
        if name == "SignedEnforcement":
            name, record = decode(record["payload"])
    except SchemaError as error:
        return {"undecodable": str(error), "bytes": len(value), "hex": value[:_SHOWN_BYTES].hex()}
    return {name: to_document(record)}


def _bytes(data: bytes) -> str:
    text = repr(data[:_SHOWN_BYTES])[1:]
    return f"{text}… ({len(data)} bytes)" if len(data) > _SHOWN_BYTES else text


def _when(at_ns: int) -> str:
    try:
        return datetime.fromtimestamp(at_ns / _NS_PER_S, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"at {at_ns} ns"
