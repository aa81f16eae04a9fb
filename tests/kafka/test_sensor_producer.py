# SPDX-License-Identifier: Apache-2.0
"""The sensor's producer against a real broker: in order and without a gap, whatever happens to the broker."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from schemas.topics import EVENTS
from sensor.publish.losses import Losses
from sensor.publish.producer import BatchProducer, Pending, client_config, kafka_client
from tests.support.topic_io import read_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.kafka_broker import KafkaBroker

NODE = "node1"
WAIT_S = 60.0


class Bench:
    """A producer and what it was told."""

    def __init__(self, brokers: str) -> None:
        self.acknowledged: list[tuple[int, int]] = []
        self.losses = Losses()
        self.producer = BatchProducer(
            kafka_client(client_config(brokers, NODE, "lz4", {})),
            EVENTS.name,
            NODE,
            lambda sequence, end: self.acknowledged.append((sequence, end)),
            self.losses,
        )
        self._sequence = 0

    def submit(self, count: int) -> None:
        for _ in range(count):
            self._sequence += 1
            payload = b"%06d" % self._sequence + bytes(2000)
            self.producer.submit(Pending(self._sequence, 100 * self._sequence, 1, payload))
            self.producer.poll()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < until
            self.producer.poll(0.05)


def sequences(broker: KafkaBroker) -> list[int]:
    return [int(message.value()[:6]) for message in read_all(broker.bootstrap, EVENTS.name)]


def first_seen(numbers: list[int]) -> list[int]:
    """As a reader takes them: what is not above the highest is dropped."""
    out: list[int] = []
    for number in numbers:
        if not out or number > out[-1]:
            out.append(number)
    return out


def test_a_broker_killed_and_started_again_costs_no_batch_and_no_order(fresh_kafka: KafkaBroker) -> None:
    fresh_kafka.create_contract_topics()
    bench = Bench(fresh_kafka.bootstrap)
    bench.submit(50)
    bench.wait_for(lambda: bool(bench.acknowledged))
    fresh_kafka.kill()
    bench.submit(100)
    assert bench.producer.flush(0.5) > 0
    fresh_kafka.restart()
    bench.submit(50)
    bench.wait_for(lambda: bench.producer.unacknowledged == 0)
    assert bench.acknowledged[-1] == (200, 20_000)
    assert bench.acknowledged == sorted(bench.acknowledged)
    assert first_seen(sequences(fresh_kafka)) == list(range(1, 201))
    bench.producer.close()


def test_batches_wait_for_a_topic_that_is_not_there_yet(fresh_kafka: KafkaBroker) -> None:
    bench = Bench(fresh_kafka.bootstrap)
    bench.submit(5)
    assert bench.producer.flush(2.0) == 5
    fresh_kafka.create_contract_topics()
    bench.wait_for(lambda: bench.producer.unacknowledged == 0)
    assert first_seen(sequences(fresh_kafka)) == [1, 2, 3, 4, 5]
    bench.producer.close()


def test_a_second_client_after_a_failure_goes_on_in_order(fresh_kafka: KafkaBroker) -> None:
    fresh_kafka.create_contract_topics()
    bench = Bench(fresh_kafka.bootstrap)
    bench.submit(20)
    bench.producer._fail("as if librdkafka had given up")
    bench.submit(20)
    bench.wait_for(lambda: bench.producer.unacknowledged == 0)
    assert bench.losses.produce__recreated == 1
    assert first_seen(sequences(fresh_kafka)) == list(range(1, 41))
    bench.producer.close()
