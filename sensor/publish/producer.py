# SPDX-License-Identifier: Apache-2.0
"""Encoded batches to Kafka, in order, until the broker has said of each that it has it.

Input: :meth:`BatchProducer.submit`. Output: ``acknowledged(sequence, ring_end)``, called when that batch and
all before it are acknowledged: only then does the ring give up its bytes.

Failure: nothing is dropped. The client retries for ever by itself; where it gives up (no permission, no
topic, a fatal protocol error) it is thrown away, and a new one sends the same bytes again from the first
batch that is not acknowledged. A reader may thus see a batch twice, never a gap and never another order.
While the broker is away ``has_room`` turns false, the ring is left alone and holds the events; what does not
fit there the kernel counts as ring_full.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from schemas.topics import BATCH_MAX_BYTES
from sensor.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sensor.publish.losses import Losses

# What may be on its way. At the highest rate one core encodes (10 MB/s) this is 0.4 s: several round trips
# of a slow broker. It is held twice, here and in the client, and counts as the sensor's memory.
MAX_UNACKNOWLEDGED_BYTES: Final = 4 * 1024 * 1024
# Small batches of a quiet node: over a minute of them. Below what the client itself would refuse.
MAX_UNACKNOWLEDGED_BATCHES: Final = 1000
# The client's own bounds, never reached because of the two above; without them it would take 1 GB.
_CLIENT_QUEUE_KBYTES: Final = 16 * 1024
_CLIENT_QUEUE_MESSAGES: Final = 4 * MAX_UNACKNOWLEDGED_BATCHES
# Between throwing a client away and the next one: soon after a hiccup, gentle on a broker that refuses.
_FIRST_RETRY_S: Final = 0.5
_LAST_RETRY_S: Final = 30.0

_log = structlog.get_logger(__name__)


class Client(Protocol):
    """What is used of confluent_kafka.Producer."""

    def produce(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        *,
        on_delivery: Callable[[KafkaError | None, Any], None] | None = None,
    ) -> None:
        """Queue one message."""

    def poll(self, timeout: float) -> int:
        """Run callbacks."""

    def flush(self, timeout: float) -> int:
        """Wait for what is queued."""

    def purge(self, *, in_queue: bool, in_flight: bool, blocking: bool) -> None:
        """Forget what is queued."""


@dataclass(slots=True)
class Pending:
    """One batch on its way.

    Attributes:
        sequence: Number of the batch.
        ring_end: Ring position (the ring's own) behind it.
        events: How many it holds.
        payload: The encoded batch.
        acknowledged: The broker has it.
    """

    sequence: int
    ring_end: int
    events: int
    payload: bytes
    acknowledged: bool = False


def client_config(
    brokers: str, node: str, compression: str, options: Mapping[str, str]
) -> dict[str, str | int | bool]:
    """Settings of librdkafka, each with what rests on it."""
    return {
        "client.id": f"nsp-sensor-{node}",
        # To find the cluster again soon after it was away; the default lets ten seconds pass.
        "reconnect.backoff.max.ms": 2000,
        "socket.keepalive.enable": True,
        "socket.nagle.disable": True,
        # Its own log goes to stderr, once per failed connect; error_cb says the same once.
        "log_level": 0,
        **options,
        "bootstrap.servers": brokers,
        # Acknowledged means: on all replicas in sync, once, in order.
        "acks": "all",
        "enable.idempotence": True,
        # A batch that fails for good must stop the ones behind it: readers drop by position, so a gap
        # filled later would be dropped.
        "enable.gapless.guarantee": True,
        # Never time out: the ring is the buffer, and back-pressure is has_room().
        "message.timeout.ms": 0,
        "message.max.bytes": BATCH_MAX_BYTES,
        # As Java and aiokafka would choose; librdkafka's default is CRC32.
        "partitioner": "murmur2_random",
        "compression.type": compression,
        # A batch is already what lingering would gather.
        "linger.ms": 0,
        "queue.buffering.max.kbytes": _CLIENT_QUEUE_KBYTES,
        "queue.buffering.max.messages": _CLIENT_QUEUE_MESSAGES,
    }


class BatchProducer:
    """Sends batches in order and reports how far the broker has them. One thread.

    Args:
        connect: Makes a client whose errors go to the given callback (see :func:`kafka_client`).
        topic: Where to.
        key: Message key: the node name.
        acknowledged: Told the sequence and ring end of the last batch of an acknowledged run.
        losses: Counters.
    """

    def __init__(
        self,
        connect: Callable[[Callable[[KafkaError], None]], Client],
        topic: str,
        key: str,
        acknowledged: Callable[[int, int], None],
        losses: Losses,
    ) -> None:
        self._connect = connect
        self._topic = topic
        self._key = key.encode()
        self._acknowledged = acknowledged
        self._losses = losses
        self._pending: deque[Pending] = deque()
        self._unsent: deque[Pending] = deque()
        self._pending_bytes = 0
        self._failure: str | None = None
        self._retry_s = _FIRST_RETRY_S
        self._retry_at = 0.0
        self._client: Client | None = connect(self._error)
        self.reachable = True
        self.last_acknowledged = time.monotonic()
        self.counters = {
            "batches": 0, "events": 0, "bytes": 0, "batches_acknowledged": 0, "events_acknowledged": 0,
        }  # fmt: skip

    @property
    def unacknowledged(self) -> int:
        """Batches on their way."""
        return len(self._pending)

    @property
    def waiting_s(self) -> float:
        """Since the last acknowledgement, when there is something to wait for."""
        return time.monotonic() - self.last_acknowledged if self._pending else 0.0

    def has_room(self) -> bool:
        """Whether another batch may be submitted; false stops the reading of the ring."""
        return (
            self._pending_bytes < MAX_UNACKNOWLEDGED_BYTES and len(self._pending) < MAX_UNACKNOWLEDGED_BATCHES
        )

    def submit(self, batch: Pending) -> None:
        """Take a batch; it is sent now or when the client can."""
        if not self._pending:
            self.last_acknowledged = time.monotonic()  # nothing was waited for until now
        self._pending.append(batch)
        self._unsent.append(batch)
        self._pending_bytes += len(batch.payload)
        self.counters["batches"] += 1
        self.counters["events"] += batch.events
        self.counters["bytes"] += len(batch.payload)
        self._send()

    def poll(self, timeout_s: float = 0.0) -> None:
        """Run the client's callbacks, send what waits, report what was acknowledged."""
        if not self._pending and not timeout_s:
            # Nothing to be told but the state of the connection, which can wait for the next batch.
            return
        if self._client is not None:
            self._client.poll(timeout_s)
        if self._failure is not None:
            self._recover()
        if self._unsent:
            self._send()
        self._advance()

    def flush(self, timeout_s: float) -> int:
        """Wait until everything is acknowledged, or for so long.

        Returns:
            Batches that are not. The ring still holds their events for the next sensor.
        """
        until = time.monotonic() + timeout_s
        while self._pending and time.monotonic() < until:
            self.poll(0.05)
        return len(self._pending)

    def close(self) -> None:
        """Let the client go; what it did not send stays in the ring."""
        self._drop_client()

    def _send(self) -> None:
        client = self._client
        while self._unsent and client is not None and self._failure is None:
            batch = self._unsent[0]
            try:
                client.produce(
                    self._topic, value=batch.payload, key=self._key, on_delivery=self._delivery_of(batch)
                )
            except BufferError:
                self._losses.produce__queue_full += 1
                return
            except KafkaException as error:
                self._fail(str(error))
                return
            self._unsent.popleft()

    def _delivery_of(self, batch: Pending) -> Callable[[KafkaError | None, Any], None]:
        client = self._client

        def delivered(error: KafkaError | None, _message: object) -> None:
            if error is None:
                batch.acknowledged = True
            elif self._client is client:  # a client thrown away reports what was purged
                self._fail(str(error))

        return delivered

    def _advance(self) -> None:
        last = None
        while self._pending and self._pending[0].acknowledged:
            last = self._pending.popleft()
            self._pending_bytes -= len(last.payload)
            self.counters["batches_acknowledged"] += 1
            self.counters["events_acknowledged"] += last.events
        if last is None:
            return
        self.reachable = True
        self.last_acknowledged = time.monotonic()
        self._retry_s = _FIRST_RETRY_S
        self._acknowledged(last.sequence, last.ring_end)

    def _error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fail(str(error))
        elif error.code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT):  # noqa: SLF001 - its API
            if self.reachable:
                _log.warning("broker_unreachable", error=str(error))
            self.reachable = False

    def _fail(self, reason: str) -> None:
        if self._failure is None:
            self._failure = reason
            self._retry_at = time.monotonic() + self._retry_s
            self._losses.produce__failed += 1
            _log.error("produce_failed", error=reason, retry_in_s=self._retry_s)
            self._retry_s = min(2 * self._retry_s, _LAST_RETRY_S)

    def _recover(self) -> None:
        """A new client, and everything that is not acknowledged again, in order."""
        if time.monotonic() < self._retry_at:
            return
        self._drop_client()
        self._losses.produce__recreated += 1
        self._failure = None
        self._unsent = deque(batch for batch in self._pending if not batch.acknowledged)
        self._client = self._connect(self._error)

    def _drop_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.purge(in_queue=True, in_flight=True, blocking=False)
            client.poll(0)


def kafka_client(config: Mapping[str, str | int | bool]) -> Callable[[Callable[[KafkaError], None]], Client]:
    """How a :class:`BatchProducer` gets its clients.

    Raises:
        SettingsError: From the returned function, when librdkafka refuses a setting.
    """

    def connect(on_error: Callable[[KafkaError], None]) -> Client:
        try:
            return Producer({**config, "error_cb": on_error})
        except KafkaException as error:
            raise SettingsError("kafka-option", "", str(error)) from error

    return connect
