# SPDX-License-Identifier: Apache-2.0
"""What lies just before the committed offsets, to rebuild the detectors' windows from.

Whoever gets a partition (start, restart, rebalance) has not seen its last batches. They are read with a
consumer of our own, before Faust delivers the first new one, and only remembered. Bounded by age, by number
and by time: what cannot be read back costs a name in an alert, not an alert, since a batch stands alone.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from schemas.topics import EVENTS
from stream_apps.streaming.message import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from stream_apps.streaming.connection import KafkaConnection

_log = structlog.get_logger(__name__)

# Batches of one partition; a full one takes a millisecond, and a restarted process must be back in seconds.
MAX_BATCHES: Final = 200
# All partitions together; the broker that this needs is the one that has just given us the partitions.
MAX_SECONDS: Final = 5.0
_ASK_TIMEOUT_S: Final = 2.0
_POLL_S: Final = 0.5
_CHUNK_MESSAGES: Final = 50
_FETCH_AHEAD_KBYTES: Final = 4096
_MS_PER_S: Final = 1000


class ReadBack:
    """Reads the end of the past. Blocking: call it in a thread.

    Attributes:
        window_s: Messages older than this are passed over.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        group: str,
        window_s: float,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        """Say what to read.

        Args:
            connection: Where Kafka is.
            group: The consumer group whose committed offsets bound the past.
            window_s: Messages older than this are passed over.
            wall_s: Wall clock.
        """
        self._config = connection.librdkafka(
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            enable_partition_eof=True,
            fetch_wait_max_ms=50,
            queued_max_messages_kbytes=_FETCH_AHEAD_KBYTES,
        )
        self.window_s = window_s
        self._wall_s = wall_s

    def chunks(self, partitions: Iterable[int]) -> Iterator[list[Message]]:
        """The batches before the committed offsets, in order within each partition, a chunk at a time."""
        deadline = time.monotonic() + MAX_SECONDS
        consumer = Consumer(self._config)  # joins no group: it is assigned, never subscribed
        try:
            ends = self._ends(consumer, partitions)
            consumer.assign(
                [
                    TopicPartition(EVENTS.name, partition, max(0, end - MAX_BATCHES))
                    for partition, end in ends.items()
                ]
            )
            while ends and time.monotonic() < deadline:
                yield self._chunk(consumer, ends)
            if ends:
                _log.warning("windows are incomplete: reading back took too long", partitions=sorted(ends))
        except KafkaException as error:
            _log.warning("windows are incomplete: reading back failed", reason=str(error.args[0]))
        finally:
            consumer.close()

    def _ends(self, consumer: Consumer, partitions: Iterable[int]) -> dict[int, int]:
        """The committed offset of each partition that has one."""
        asked = [TopicPartition(EVENTS.name, each) for each in partitions]
        committed = consumer.committed(asked, timeout=_ASK_TIMEOUT_S)
        return {each.partition: each.offset for each in committed if each.offset > 0 and not each.error}

    def _chunk(self, consumer: Consumer, ends: dict[int, int]) -> list[Message]:
        """Read some; partitions that are read to their end leave ``ends``."""
        oldest_ms = (self._wall_s() - self.window_s) * _MS_PER_S
        chunk = []
        received: list[Any] = consumer.consume(_CHUNK_MESSAGES, _POLL_S)
        for each in received:
            partition = each.partition()
            error = each.error()
            if error is not None:
                if error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client names it so
                    raise KafkaException(error)
                ends.pop(partition, None)
                continue
            offset = each.offset()
            if partition not in ends or offset >= ends[partition]:
                ends.pop(partition, None)
                continue
            if offset == ends[partition] - 1:
                del ends[partition]
            if each.timestamp()[1] >= oldest_ms:
                chunk.append(Message(EVENTS.name, partition, offset, each.key(), each.value()))
        return chunk
