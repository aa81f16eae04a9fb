# SPDX-License-Identifier: Apache-2.0
"""The producer of everything a stream app says.

Idempotent, acknowledged by all replicas, without end of patience: while the broker is away, outputs wait in
a bounded queue, and when that is full, whoever produces waits. Nothing is ever dropped. An output the broker
refuses for good (no permission, too large) makes :meth:`Outputs.deliver` raise, and so the process end
before the offset of its input is committed.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from schemas.topics import PROFILE_BATCH_MAX_BYTES
from stream_apps.streaming.errors import OutputLostError, StoppedError

if TYPE_CHECKING:
    from stream_apps.streaming.connection import KafkaConnection
    from stream_apps.streaming.metrics import Metrics

# Outputs that wait for the broker. Alerts and enforcement are few: this is hours of them, and a bound on
# memory when they are not.
QUEUE_MESSAGES: Final = 20_000
QUEUE_KBYTES: Final = 65_536

# How often somebody looks whether a full queue has room or a broker is back.
RETRY_S: Final = 0.05

# A slice of waiting for deliveries, after which failures and a wish to stop are looked at.
DELIVERY_SLICE_S: Final = 0.25

# Whoever is told to stop waits this long for outstanding deliveries; what is left is produced again after
# the restart, since its input was not committed.
STOP_PATIENCE_S: Final = 10.0


class Outputs:
    """Produces, and knows whether it was delivered. Used on one event loop."""

    def __init__(self, connection: KafkaConnection, metrics: Metrics) -> None:
        self._metrics = metrics
        # Counted here: the client's own length has its unread error events in it too. Reports come in the
        # loop and in the thread that flushes.
        self._outstanding = 0
        self._counting = threading.Lock()
        self._failure: str | None = None
        self._stop_at: float | None = None
        self._producer = Producer(
            connection.librdkafka(
                acks="all",
                enable_idempotence=True,
                partitioner="murmur2_random",
                linger_ms=0,
                message_timeout_ms=0,
                message_max_bytes=PROFILE_BATCH_MAX_BYTES,
                queue_buffering_max_messages=QUEUE_MESSAGES,
                queue_buffering_max_kbytes=QUEUE_KBYTES,
            )
            | {"error_cb": self._on_error}
        )

    @property
    def waiting(self) -> int:
        """Outputs not acknowledged yet."""
        return self._outstanding

    @property
    def failure(self) -> str | None:
        """Why an output was refused for good, None while all is well."""
        return self._failure

    async def send(self, topic: str, key: bytes, value: bytes | None, partition: int = -1) -> None:
        """Hand an output over; wait while the queue is full.

        Args:
            topic: Topic.
            key: Key; chooses the partition unless one is given.
            value: Value; None is a tombstone.
            partition: Partition, -1 for the key's.

        Raises:
            OutputLostError: The client refuses it for good.
        """
        while True:
            try:
                with self._counting:
                    self._producer.produce(
                        topic, value, key, partition=partition, on_delivery=self._on_delivery
                    )
                    self._outstanding += 1
                break
            except BufferError:
                self._metrics.output_waits.inc()
                self._producer.poll(0)
                await asyncio.sleep(RETRY_S)
            except KafkaException as error:
                self._metrics.outputs.labels(topic, "refused").inc()
                raise OutputLostError(f"an output to {topic} was refused: {error}") from error
        self._producer.poll(0)

    async def deliver(self) -> None:
        """Return when all that was handed over is acknowledged.

        Raises:
            OutputLostError: One of them was refused for good.
            StoppedError: Told to stop, and the broker is away.
        """
        loop = asyncio.get_running_loop()
        while self._outstanding and not self._failure:
            await loop.run_in_executor(None, self._producer.flush, DELIVERY_SLICE_S)
            if self._outstanding and self._stop_at is not None and time.monotonic() > self._stop_at:
                raise StoppedError(
                    f"{self._outstanding} outputs could not be delivered before the stop; "
                    "their input is not committed and will be read again"
                )
        if self._failure:
            raise OutputLostError(self._failure)

    def poll(self) -> None:
        """Serve delivery reports that nobody waits for."""
        self._producer.poll(0)

    def stop_soon(self) -> None:
        """From now on waiting has an end."""
        self._stop_at = time.monotonic() + STOP_PATIENCE_S

    def _on_delivery(self, error: KafkaError | None, message: Any) -> None:
        with self._counting:
            self._outstanding -= 1
        topic = message.topic()
        if error is None:
            self._metrics.outputs.labels(topic, "delivered").inc()
            return
        self._metrics.outputs.labels(topic, "lost").inc()
        self._failure = self._failure or f"the broker refused an output to {topic}: {error.str()}"

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._failure = self._failure or f"the Kafka producer failed for good: {error.str()}"
