# SPDX-License-Identifier: Apache-2.0
"""The events of a stretch of time from Kafka, all partitions merged by time, for ``nsp replay``.

Input: a cluster and two wall times. Output: messages in the order they were written. A partition whose next
message is not due yet waits, so no node's events run days ahead of another's. Offsets are asked for and
assigned; no group is joined and nothing is committed. Failure: :class:`~nsp.errors.CommandError` when the
broker stops answering.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from nsp.errors import CommandError
from nsp.kafka import ANSWER_TIMEOUT_S, Cluster
from schemas.topics import EVENTS
from stream_apps.replay.session import Received

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from confluent_kafka import Consumer

# Read ahead of one partition while others are behind; a full batch is 25 to 100 kB.
MAX_AHEAD_BYTES: Final = 4 * 1024 * 1024
_FETCH_AHEAD_KBYTES: Final = 8192
_CHUNK_MESSAGES: Final = 500
_POLL_S: Final = 0.2
_NS_PER_MS: Final = 1_000_000


class Stretch(NamedTuple):
    """What is to be read of a partition.

    Attributes:
        start: First offset.
        end: Offset after the last.
        begins_late: The topic has nothing from as early as was asked for.
    """

    start: int
    end: int
    begins_late: bool


@dataclass(slots=True)
class _Ahead:
    """Messages of a partition that are not due yet."""

    messages: deque[Received] = field(default_factory=deque)
    size: int = 0
    paused: bool = False


class EventReader:
    """Reads."""

    def __init__(self, cluster: Cluster, from_ns: int, until_ns: int) -> None:
        """Find the offsets.

        Args:
            cluster: Where Kafka is.
            from_ns: Wall time of the first message.
            until_ns: Wall time before which messages are read.

        Raises:
            CommandError: No broker answers, or there is no topic.
        """
        partitions = cluster.partitions_of(EVENTS.name)
        self._cluster = cluster
        self._until_ns = until_ns
        self._consumer: Consumer = cluster.reader(
            EVENTS.name, {"fetch.wait.max.ms": 50, "queued.max.messages.kbytes": _FETCH_AHEAD_KBYTES}
        )
        try:
            found = _stretches(self._consumer, range(partitions), from_ns, until_ns)
        except KafkaException as error:
            self._consumer.close()
            raise CommandError(f"{EVENTS.name}: {error.args[0].str()}") from error
        self.begins_late = any(each.begins_late for each in found.values())
        self._stretches = {number: each for number, each in found.items() if each.start < each.end}
        self.total = sum(each.end - each.start for each in self._stretches.values())
        self._ahead = {number: _Ahead() for number in self._stretches}
        self._left = set(self._stretches)

    def messages(self) -> Iterator[Received]:
        """The messages, the oldest first.

        Raises:
            CommandError: The broker stopped answering.
        """
        self._consumer.assign(
            [TopicPartition(EVENTS.name, number, each.start) for number, each in self._stretches.items()]
        )
        patience = time.monotonic() + ANSWER_TIMEOUT_S
        try:
            while self._left:
                received: list[Any] = self._consumer.consume(_CHUNK_MESSAGES, _POLL_S)
                for each in received:
                    self._take(each)
                if received:
                    patience = time.monotonic() + ANSWER_TIMEOUT_S
                elif time.monotonic() > patience:
                    raise self._cluster.unanswered(EVENTS.name)
                due = list(self._due())
                self._pace()
                yield from due
                if due:  # what was yielded may have taken long; that is not the broker's fault
                    patience = time.monotonic() + ANSWER_TIMEOUT_S
            yield from self._due()
        except KafkaException as error:
            raise CommandError(f"{EVENTS.name}: {error.args[0].str()}") from error
        finally:
            self._consumer.close()

    def close(self) -> None:
        """Close without having read."""
        self._consumer.close()

    def _take(self, message: Any) -> None:
        number = message.partition()
        error = message.error()
        if error is not None:
            if error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client names it so
                raise KafkaException(error)
            # Where offsets are missing (transactions, compaction) the last one may not be there.
            self._left.discard(number)
            return
        offset, end = message.offset(), self._stretches[number].end
        if number not in self._left or offset >= end:
            self._left.discard(number)
            return
        value = message.value()
        wall_ns = max(message.timestamp()[1], 0) * _NS_PER_MS
        ahead = self._ahead[number]
        if wall_ns < self._until_ns:
            ahead.messages.append(Received(f"{EVENTS.name}/{number}@{offset}", value, wall_ns))
            ahead.size += len(value or b"")
        if offset == end - 1:
            self._left.discard(number)

    def _due(self) -> Iterator[Received]:
        """Messages that no other partition can have an older one than."""
        while all(self._ahead[number].messages for number in self._left):
            waiting = [each for each in self._ahead.values() if each.messages]
            if not waiting:
                return
            first = min(waiting, key=lambda each: each.messages[0].wall_ns)
            message = first.messages.popleft()
            first.size -= len(message.value or b"")
            yield message

    def _pace(self) -> None:
        """Let partitions that are far ahead wait."""
        for number in self._left:
            ahead = self._ahead[number]
            too_far = ahead.size > MAX_AHEAD_BYTES
            if too_far != ahead.paused and (too_far or ahead.size < MAX_AHEAD_BYTES // 2):
                place = [TopicPartition(EVENTS.name, number)]
                (self._consumer.pause if too_far else self._consumer.resume)(place)
                ahead.paused = too_far


def _stretches(consumer: Consumer, partitions: range, from_ns: int, until_ns: int) -> Mapping[int, Stretch]:
    def at(wall_ns: int) -> dict[int, int]:
        asked = [TopicPartition(EVENTS.name, each, max(wall_ns, 0) // _NS_PER_MS) for each in partitions]
        found = consumer.offsets_for_times(asked, timeout=ANSWER_TIMEOUT_S)
        return {each.partition: each.offset for each in found}

    starts, ends = at(from_ns), at(until_ns)
    stretches = {}
    for number in partitions:
        place = TopicPartition(EVENTS.name, number)
        low, high = consumer.get_watermark_offsets(place, timeout=ANSWER_TIMEOUT_S)
        # A negative offset: nothing is as late as that.
        start = starts[number] if starts[number] >= 0 else high
        end = ends[number] if ends[number] >= 0 else high
        stretches[number] = Stretch(start, min(end, high), begins_late=0 < low == start)
    return stretches
