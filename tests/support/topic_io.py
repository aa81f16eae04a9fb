# SPDX-License-Identifier: Apache-2.0
"""Writing to and reading from the topics of a test's broker."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition

from schemas.codec import decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

READ_TIMEOUT_S = 30.0


def write(bootstrap: str, topic: str, messages: Iterable[tuple[bytes | None, bytes | None]]) -> None:
    """Write (key, value) messages and wait until the broker has them."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "linger.ms": 5,
            "log_level": 0,
        }
    )
    for key, value in messages:
        producer.produce(topic, value, key)
        producer.poll(0)
    assert producer.flush(READ_TIMEOUT_S) == 0


def write_batches(bootstrap: str, batches: Iterable[Mapping[str, Any]]) -> None:
    """Write event batches as a sensor would."""
    write(bootstrap, "nsp.events", ((each["node"].encode(), encode("EventBatch", each)) for each in batches))


def read_all(bootstrap: str, topic: str) -> list[Any]:
    """Every message of a topic, from the beginning to its end as it is now."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "test-reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    try:
        left = set(consumer.list_topics(topic, timeout=READ_TIMEOUT_S).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, each, OFFSET_BEGINNING) for each in left])
        messages = []
        deadline = time.monotonic() + READ_TIMEOUT_S
        while left:
            assert time.monotonic() < deadline, f"{topic} was not delivered to its end"
            message: Any = consumer.poll(0.2)
            if message is None:
                continue
            if message.error() is None:
                messages.append(message)
            elif message.error().code() == KafkaError._PARTITION_EOF:
                left.discard(message.partition())
        return messages
    finally:
        consumer.close()


def read_records(bootstrap: str, topic: str) -> list[dict[str, Any]]:
    """Every record of a topic, decoded."""
    return [decode(each.value())[1] for each in read_all(bootstrap, topic)]


def committed(bootstrap: str, group: str, topic: str) -> dict[int, int]:
    """The committed offset of each partition that has one."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "log_level": 0})
    try:
        partitions = consumer.list_topics(topic, timeout=READ_TIMEOUT_S).topics[topic].partitions
        asked = [TopicPartition(topic, each) for each in partitions]
        return {
            each.partition: each.offset
            for each in consumer.committed(asked, timeout=READ_TIMEOUT_S)
            if each.offset >= 0
        }
    finally:
        consumer.close()
