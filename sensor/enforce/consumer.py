# SPDX-License-Identifier: Apache-2.0
"""Reads this node's partition of nsp.enforcement, from its beginning, for ever.

No consumer group: the partition is the one the node name hashes to, nothing is committed, and each start
reads all of it again, so the state after any restart is exactly the topic's.

Input: the topic. Output: a call for each message, in order, and one when the end at start is reached.
Failure: nothing raises out of :meth:`Reader.poll`; errors of the client are counted, and it recovers by
itself. Where the topic cannot be reached, what is in force stays in force.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from schemas.partition import partition_for
from schemas.topics import ENFORCEMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from confluent_kafka import Message

# Between a look at the clock (expiry, first refusals, retries) and the next, while no message comes.
POLL_SECONDS: Final = 0.05

# The same while orders about profiles wait: more may be on their way, and all are one change of the maps.
MORE_POLL_SECONDS: Final = 0.005

# The same while nothing is in force or waits: there is no clock to look at, and a message ends the wait at
# once. Twenty turns a second cost a quarter of a percent of a core. A stop waits as long.
IDLE_POLL_SECONDS: Final = 0.5

# One question to a broker at start: metadata, or where the partition ends. The caller asks again later.
REQUEST_SECONDS: Final = 5.0

_CONSUMER: Final[Mapping[str, Any]] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "earliest",
    "enable.partition.eof": True,
    # A broker answers at once when an order comes; while none does, so many questions are asked.
    "fetch.wait.max.ms": 500,
    # Orders are small; what is fetched ahead is memory of the sensor.
    "queued.max.messages.kbytes": 1024,
    "queued.min.messages": 100,
    # Back within a second of the broker: an order may be waiting.
    "reconnect.backoff.max.ms": 1000,
    "fetch.error.backoff.ms": 100,
}


class Reader:
    """One partition, read from the start.

    Args:
        node: Node name.
        settings: librdkafka properties that say where the brokers are and how to reach them. They win
            over the defaults here where both speak.
        count: Called with the name of what went wrong.
    """

    def __init__(self, node: str, settings: Mapping[str, Any], count: Callable[[str], None]) -> None:
        self._node = node
        self._count = count
        # librdkafka wants a group id even where no group is used.
        # Lost connections are told to the callback only; the client comes back by itself.
        own = {"group.id": f"sensor-{node}", "error_cb": lambda _: count("broker_error")}
        self._consumer = Consumer({**own, **_CONSUMER, **settings})
        self._end = 0
        self._at_end = False

    def assign(self) -> int | None:
        """Find the partition and begin to read it.

        Returns:
            How many partitions the topic has, or None when it is not reachable, or not there, yet.
        """
        try:
            topic = self._consumer.list_topics(ENFORCEMENT.name, REQUEST_SECONDS).topics[ENFORCEMENT.name]
            if topic.error is not None or not topic.partitions:
                self._count("topic_missing")
                return None
            count = len(topic.partitions)
            partition = partition_for(self._node.encode(), count)
            here = TopicPartition(ENFORCEMENT.name, partition, OFFSET_BEGINNING)
            _, self._end = self._consumer.get_watermark_offsets(here, REQUEST_SECONDS)
            self._consumer.assign([here])
        except KafkaException:
            self._count("kafka_unreachable")
            return None
        return count

    def poll(self, message: Callable[[bytes | None, bytes | None], None], wait_s: float) -> bool:
        """Hand over the next message, if one comes within so long.

        Returns:
            True once, when all that was there at start has been handed over.
        """
        got = self._consumer.poll(wait_s)
        if got is None:
            return False
        error = got.error()
        if error is None:
            message(got.key(), got.value())
        elif error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's public name for it
            self._count("consume_error")
            return False
        return self._reached_end(got, at_end=error is not None)

    def _reached_end(self, got: Message, *, at_end: bool) -> bool:
        if self._at_end:
            return False
        offset = got.offset()
        # The last offset may be a transaction marker, which only the end-of-partition event tells of.
        self._at_end = at_end or (offset is not None and offset + 1 >= self._end)
        return self._at_end

    def close(self) -> None:
        """Let go of the partition."""
        self._consumer.close()
