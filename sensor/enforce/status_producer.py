# SPDX-License-Identifier: Apache-2.0
"""Sends statuses to nsp.enforcement-status.

Input: EnforcementStatus records. The producer is enforcement's own, not the one of the events: an
acknowledgement must not stand in line behind a backlog of batches, and its queue is small. It keeps order
with one request in flight instead of idempotence: a status sent twice says the same. Failure: a status
that cannot be queued or delivered is counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaException, Producer

from schemas.codec import encode
from schemas.errors import CodecError
from schemas.subject import enforcement_key
from schemas.topics import ENFORCEMENT_STATUS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from confluent_kafka import KafkaError, Message

# Statuses that wait for a broker: a few for each quarantine a node can hold.
MAX_QUEUED: Final = 2048

# What a stopping sensor waits for its last words to be delivered.
FLUSH_SECONDS: Final = 2.0

_PRODUCER: Final[Mapping[str, Any]] = {
    "acks": "all",
    "linger.ms": 0,  # an acknowledgement is waited for
    "max.in.flight": 1,  # keeps the order of statuses across retries
    "message.timeout.ms": 0,  # a status waits out a broker that is away; MAX_QUEUED bounds what waits
    "queue.buffering.max.messages": MAX_QUEUED,
    "partitioner": "murmur2_random",
    "reconnect.backoff.max.ms": 1000,  # back within a second of the broker
}


class StatusProducer:
    """Sends statuses; never raises, never blocks.

    Args:
        settings: librdkafka properties that say where the brokers are and how to reach them.
        count: Called with the name of what went wrong.
    """

    def __init__(self, settings: Mapping[str, Any], count: Callable[[str], None]) -> None:
        self._count = count
        # Options hold for every client; librdkafka would complain about those of consumers at each start.
        options = {name: value for name, value in settings.items() if not name.startswith("fetch.")}
        self._producer = Producer({**options, **_PRODUCER})

    def send(self, record: Mapping[str, Any]) -> None:
        """Queue one status."""
        key = enforcement_key(record["node"], record["subject"])
        try:
            value = encode("EnforcementStatus", record)
            self._producer.produce(ENFORCEMENT_STATUS.name, value, key, on_delivery=self._delivered)
        except BufferError:
            self._count("status_queue_full")
        except (CodecError, KafkaException):
            self._count("status_not_sent")

    def poll(self) -> None:
        """Serve deliveries."""
        self._producer.poll(0)

    def close(self) -> None:
        """Wait a little for what is queued; the rest is counted."""
        for _ in range(self._producer.flush(FLUSH_SECONDS)):
            self._count("status_not_delivered")

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._count("status_not_delivered")
