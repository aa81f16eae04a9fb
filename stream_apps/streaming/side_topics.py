# SPDX-License-Identifier: Apache-2.0
"""The topics every stream app reads in whole, beside its share of the events.

``nsp.pods``, ``nsp.profiles``, ``nsp.rules``, ``nsp.observations``, ``nsp.enforcement`` and ``nsp.responses``
from the beginning, loaded before the first event is processed or the first order published;
``nsp.enforcement-status`` from now on. One consumer without a group, in a thread; what it reads is handed to
the event loop, so that the pipeline is touched by one thread only. A broker that is away is waited for.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final

import structlog
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from schemas.letters import bounded
from schemas.topics import (
    ENFORCEMENT,
    ENFORCEMENT_STATUS,
    OBSERVATIONS,
    PODS,
    PROFILES,
    RESPONSES,
    RULES,
    TOPICS,
)
from stream_apps.streaming.errors import StartError, StoppedError
from stream_apps.streaming.message import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_apps.streaming.connection import KafkaConnection

_log = structlog.get_logger(__name__)

# One question to a broker; asked again without end, because a broker may take its time to come.
_ASK_TIMEOUT_S: Final = 5.0
# Also how long a stop can take to be noticed.
_POLL_S: Final = 0.25
# What one process said last must be read by the one that takes over from it; longer than this nothing waits.
CATCH_UP_S: Final = 5.0
_CATCH_UP_STEP_S: Final = 0.02
# Messages handed over at once, so that a topic of 100,000 pods costs few turns of the loop.
_HANDOVER_MESSAGES: Final = 500
# What librdkafka may fetch ahead; its 64 MB default would be most of this process.
_FETCH_AHEAD_KBYTES: Final = 4096

_IN_WHOLE: Final = tuple(each.name for each in (PODS, PROFILES, RULES, OBSERVATIONS, ENFORCEMENT, RESPONSES))
_NS_PER_MS: Final = 1_000_000
_FROM_NOW: Final = ENFORCEMENT_STATUS.name


class SideTopics:
    """Reads the side topics."""

    def __init__(self, connection: KafkaConnection) -> None:
        self._config = connection.librdkafka(
            group_id="nsp-stream-side-topics",  # required by the client; no group is joined
            enable_auto_commit=False,
            enable_partition_eof=True,  # says that a topic was read in whole
            auto_offset_reset="earliest",
            fetch_wait_max_ms=100,
            queued_max_messages_kbytes=_FETCH_AHEAD_KBYTES,
        )
        self._consumer = Consumer(self._config)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._unread: set[tuple[str, int]] = set()
        # Offset after what was read and what was taken, by topic and partition. The thread writes, and
        # replaces the second whole: whoever waits for it reads one or the other.
        self._reached: dict[tuple[str, int], int] = {}
        self._taken: dict[tuple[str, int], int] = {}

    def topics(self) -> Mapping[str, int]:
        """Partitions of each of our topics; waits for a broker.

        Raises:
            StartError: A topic of the contract does not exist.
            StoppedError: Stopped while waiting.
        """
        said = False
        while not self._stop.is_set():
            try:
                found = self._consumer.list_topics(timeout=_ASK_TIMEOUT_S).topics
            except KafkaException as error:
                if not said:
                    _log.warning("waiting for Kafka", reason=str(error.args[0]))
                    said = True
                self._stop.wait(_POLL_S)
                continue
            if missing := [name for name in TOPICS if name not in found]:
                raise StartError(f"Kafka has no topic {', '.join(missing)}: run `nsp topics create`")
            return {name: len(found[name].partitions) for name in TOPICS}
        raise StoppedError("stopped while waiting for Kafka")

    def load(self, partitions: Mapping[str, int], take: Callable[[list[Message]], object]) -> int:
        """Read what is read in whole, up to its end as it is now; :meth:`start` goes on from there.

        Args:
            partitions: As :meth:`topics` says.
            take: Called with what was read, in this thread.

        Returns:
            How many messages there were.

        Raises:
            StoppedError: Stopped while loading.
        """
        self._unread = {(name, each) for name in _IN_WHOLE for each in range(partitions[name])}
        self._consumer.assign(
            [TopicPartition(name, each, OFFSET_BEGINNING) for name, each in sorted(self._unread)]
            + [TopicPartition(_FROM_NOW, each, OFFSET_END) for each in range(partitions[_FROM_NOW])]
        )
        count = 0
        while not self._stop.is_set():
            messages = self._read()
            take(messages)
            self._taken = dict(self._reached)
            count += len(messages)
            if not self._unread:
                return count
        raise StoppedError("stopped while loading pods, profiles, rules and enforcement")

    def start(self, take: Callable[[list[Message]], None]) -> None:
        """Go on reading in a thread; ``take`` is called in that thread."""
        self._thread = threading.Thread(target=self._run, args=(take,), name="side-topics", daemon=True)
        self._thread.start()

    def catch_up(self, topic: str) -> bool:
        """Wait until a topic is taken up to its end as it is now; not when that takes too long. Blocking.

        Whoever gets partitions from another process needs what that one has said last.
        """
        deadline = time.monotonic() + CATCH_UP_S
        try:
            ends = self._ends(topic)
        except KafkaException as error:
            _log.warning("the end of a side topic is not known", topic=topic, reason=str(error.args[0]))
            return False
        while any(self._taken[place] < end for place, end in ends.items()):
            if time.monotonic() > deadline or self._stop.wait(_CATCH_UP_STEP_S):
                _log.warning("a side topic is behind", topic=topic)
                return False
        return True

    def _ends(self, topic: str) -> dict[tuple[str, int], int]:
        """Where the partitions of a topic end now.

        With a client of its own: the one that the thread polls does not answer meanwhile, not even late.
        """
        asking = Consumer(self._config)
        try:
            found = {}
            for place in [place for place in self._taken if place[0] == topic]:
                offsets: Any = asking.get_watermark_offsets(TopicPartition(*place), timeout=_ASK_TIMEOUT_S)
                if offsets is None:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001 - the client's name
                found[place] = offsets[1]
            return found
        finally:
            asking.close()

    def interrupt(self) -> None:
        """Let whatever waits for the broker end with :class:`StoppedError`; safe in a signal handler."""
        if not self._thread:
            self._stop.set()

    def stop(self) -> None:
        """Stop reading and close."""
        self._stop.set()
        if self._thread:
            self._thread.join()
            self._consumer.close()

    def _run(self, take: Callable[[list[Message]], None]) -> None:
        while not self._stop.is_set():
            if messages := self._read():
                take(messages)
            self._taken = dict(self._reached)

    def _read(self) -> list[Message]:
        # consume() alone would wait for all it may return, and a profile would with it.
        first: Any = self._consumer.poll(_POLL_S)
        if first is None:
            return []
        received: list[Any] = [first, *self._consumer.consume(_HANDOVER_MESSAGES - 1, 0)]
        messages = []
        for each in received:
            error = each.error()
            place = each.topic(), each.partition()
            if error is None:
                messages.append(_message(each))
                self._reached[place] = each.offset() + 1
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client names it so
                self._unread.discard(place)
                self._reached[place] = each.offset()
            else:
                _log.warning("reading a side topic", topic=each.topic(), reason=error.str())
        return messages


def _message(received: Any) -> Message:
    """A message as the client gives it; without a time it has 0."""
    return Message(
        topic=received.topic(),
        partition=received.partition(),
        offset=received.offset(),
        key=received.key(),
        value=received.value(),
        timestamp_ns=max(received.timestamp()[1], 0) * _NS_PER_MS,
        headers=bounded(received.headers()),
    )
