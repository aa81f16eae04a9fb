# SPDX-License-Identifier: Apache-2.0
"""A real Apache Kafka for a measurement, and reading a topic back from its beginning."""

from __future__ import annotations

import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, TopicPartition

from bench.errors import BenchError
from schemas.codec import decode_as
from tests.support.kafka_broker import KafkaBroker
from tests.support.kafka_jars import KafkaUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

READ_TIMEOUT_S = 300.0


@contextmanager
def real_kafka() -> Iterator[KafkaBroker]:
    """Run one broker with all topics of the contract."""
    with tempfile.TemporaryDirectory(prefix="nsp-bench-kafka-") as directory:
        broker = KafkaBroker(Path(directory))
        try:
            broker.start()
            broker.create_contract_topics()
        except KafkaUnavailableError as error:
            raise BenchError(str(error)) from error
        try:
            yield broker
        finally:
            broker.kill()


def batches(bootstrap: str) -> Iterator[dict[str, Any]]:
    """Yield every EventBatch on nsp.events, in order of each partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "nsp-bench", "log_level": 0})
    try:
        remaining = {}
        for number in consumer.list_topics(timeout=10).topics["nsp.events"].partitions:
            _, end = consumer.get_watermark_offsets(TopicPartition("nsp.events", number), timeout=10)
            if end:
                remaining[number] = end
        consumer.assign([TopicPartition("nsp.events", number, 0) for number in remaining])
        deadline = time.monotonic() + READ_TIMEOUT_S
        while remaining:
            if time.monotonic() > deadline:
                raise BenchError("the topic could not be read back in time")
            for message in consumer.consume(200, 1.0):
                value, offset, partition = message.value(), message.offset(), message.partition()
                if message.error() is not None or value is None or offset is None or partition is None:
                    continue
                yield decode_as("EventBatch", value)
                if offset + 1 >= remaining.get(partition, 0):
                    remaining.pop(partition, None)
    finally:
        consumer.close()
