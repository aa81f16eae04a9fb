# SPDX-License-Identifier: Apache-2.0
"""Sends what became a dead letter to its topic once more. For ``nsp dead-letter retry``.

Input: letters. Output: for each its message, as it was and to the partition it was in, with one more try in
its header, and after the broker has it a mark beside the letter. A letter is compared with the message
itself, while the topic has it: who may only write letters must not have a person send what he wrote.

Failure: a letter that should not be sent is refused with the reason. Between message and mark a crash costs a
second retry, whose alerts have the same ids.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nsp.errors import CommandError
from schemas.letters import RETRIED, with_retries
from schemas.topics import DEAD_LETTER, TOPICS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from nsp.kafka import Cluster
    from nsp.letters import Letter

# What failed three times with somebody looking fails a fourth time.
MAX_RETRIES: Final = 3
# The broker answers in milliseconds where a message still is.
_PATIENCE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Sending:
    """One message to send, or why not.

    Attributes:
        letter: What it is about.
        key: Its key.
        value: Its value.
        refusal: Why it is not sent; empty: it is.
    """

    letter: Letter
    key: bytes | None = None
    value: bytes | None = None
    refusal: str = ""


def plan(
    cluster: Cluster, letters: Iterable[Letter], retried: Mapping[str, int], *, force: bool
) -> list[Sending]:
    """What would be sent, in the order of the source topics."""
    partitions = cluster.partitions()
    found = [_planned(cluster, each, retried, partitions, force=force) for each in letters]
    if not force:
        found = _without_outdated(cluster, found)
    return sorted(found, key=lambda each: (each.letter.record["topic"], each.letter.record["partition"],
                                           each.letter.record["offset"]))  # fmt: skip


def send(cluster: Cluster, sendings: Sequence[Sending]) -> None:
    """Send, wait for the broker, and mark the letters.

    Raises:
        CommandError: The broker did not take all; letters without a mark may be retried again.
    """
    by_topic: dict[str, list[Sending]] = defaultdict(list)
    for each in sendings:
        if not each.refusal:
            by_topic[each.letter.record["topic"]].append(each)
    for topic, wanted in by_topic.items():
        cluster.publish(
            topic,
            [(each.key, each.value, each.letter.record["partition"]) for each in wanted],
            [with_retries(each.letter.headers, each.letter.retries + 1) for each in wanted],
        )
        cluster.publish(
            DEAD_LETTER.name,
            [(topic.encode(), None, -1) for _ in wanted],
            [((RETRIED, str(each.letter.place).encode()),) for each in wanted],
        )


def _planned(
    cluster: Cluster,
    letter: Letter,
    retried: Mapping[str, int],
    partitions: Mapping[str, int],
    *,
    force: bool,
) -> Sending:
    refusal = _never(letter, partitions) or ("" if force else _not_again(letter, retried))
    if refusal:
        return Sending(letter, refusal=refusal)
    record = letter.record
    original = _original(cluster, record["topic"], record["partition"], record["offset"])
    if original is not None:
        if letter.is_about(original.key(), original.value()):
            return Sending(letter, original.key(), original.value())
        return Sending(letter, refusal="the topic has another message there: who wrote this letter?")
    if letter.is_cut:
        return Sending(letter, refusal="the letter has only a part of it, and the topic has it no more")
    if not force:
        return Sending(letter, refusal="the topic has it no more to compare with; --force trusts the letter")
    return Sending(letter, record["key"], record["value"])


def _never(letter: Letter, partitions: Mapping[str, int]) -> str:
    """Why a letter cannot be retried at all."""
    topic, partition = letter.record["topic"], letter.record["partition"]
    if topic not in TOPICS or topic == DEAD_LETTER.name:
        return "it is from no topic of ours"
    if not 0 <= partition < partitions.get(topic, 0):
        return f"{topic} has no partition {partition} here"
    if letter.record["value"] is None:
        return "its message was empty; on some topics that deletes something"
    return ""


def _not_again(letter: Letter, retried: Mapping[str, int]) -> str:
    """Why a letter has been retried enough."""
    again = retried.get(str(letter.place), 0)
    if again:
        return f"it was retried {again} times already; --force does it again"
    if letter.retries >= MAX_RETRIES:
        return f"its message failed after {letter.retries} retries; --force goes on"
    return ""


def _original(cluster: Cluster, topic: str, partition: int, offset: int) -> Any:
    """The message itself, if it is still there."""
    deadline = time.monotonic() + _PATIENCE_S
    for message in cluster.follow(topic, {partition: offset}):
        if message is not None:
            if message.error() is None and message.offset() == offset:
                return message
            return None  # the end, or a later one
        if time.monotonic() > deadline:
            raise CommandError(f"Kafka does not deliver {topic}/{partition}@{offset}")
    return None


def _without_outdated(cluster: Cluster, found: list[Sending]) -> list[Sending]:
    """On compacted topics the newest of a key counts: an old one must not come back over it."""
    topics = {
        each.letter.record["topic"]
        for each in found
        if not each.refusal and TOPICS[each.letter.record["topic"]].cleanup == "compact"
    }
    newest: dict[tuple[str, bytes | None], int] = {}
    for topic in topics:
        for message in cluster.read_all(topic, range(cluster.partitions_of(topic))):
            newest[topic, message.key()] = message.offset()
    return [
        Sending(each.letter, refusal="the topic has a newer message of its key; --force puts it over that")
        if not each.refusal
        and newest.get((each.letter.record["topic"], each.key), -1) > each.letter.record["offset"]
        else each
        for each in found
    ]
