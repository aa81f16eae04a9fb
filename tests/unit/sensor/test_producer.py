# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from sensor.errors import SettingsError
from sensor.publish import producer as module
from sensor.publish.losses import Losses
from sensor.publish.producer import BatchProducer, Pending, client_config, kafka_client

if TYPE_CHECKING:
    from collections.abc import Callable


class FakeClient:
    """A client whose broker answers when the test says so."""

    def __init__(self, on_error: Callable[[KafkaError], None]) -> None:
        self.on_error = on_error
        self.queue: list[tuple[bytes, Callable[[KafkaError | None, Any], None]]] = []
        self.room = 100
        self.due: list[Callable[[], None]] = []
        self.purged = False

    def produce(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        *,
        on_delivery: Callable[[KafkaError | None, Any], None] | None = None,
    ) -> None:
        assert (topic, key) == ("nsp.events", b"node1")
        assert value is not None
        assert on_delivery is not None
        if len(self.queue) >= self.room:
            raise BufferError("queue full")
        self.queue.append((value, on_delivery))

    def poll(self, _timeout: float) -> int:
        due, self.due = self.due, []
        for each in due:
            each()
        return len(due)

    def flush(self, _timeout: float) -> int:
        return 0

    def purge(self, *, in_queue: bool, in_flight: bool, blocking: bool) -> None:
        self.purged = in_queue and in_flight and not blocking
        error = KafkaError(KafkaError._PURGE_INFLIGHT)
        for place in range(len(self.queue)):
            self.answer(place, error)

    def answer(self, place: int, error: KafkaError | None = None) -> None:
        done = self.queue[place][1]
        self.due.append(lambda: done(error, None))

    @property
    def payloads(self) -> list[bytes]:
        return [payload for payload, _ in self.queue]


class Bench:
    def __init__(self) -> None:
        self.clients: list[FakeClient] = []
        self.acknowledged: list[tuple[int, int]] = []
        self.losses = Losses()
        self.producer = BatchProducer(
            self.connect,
            "nsp.events",
            "node1",
            lambda sequence, end: self.acknowledged.append((sequence, end)),
            self.losses,
        )

    def connect(self, on_error: Callable[[KafkaError], None]) -> FakeClient:
        self.clients.append(FakeClient(on_error))
        return self.clients[-1]

    def submit(self, *sequences: int) -> None:
        for sequence in sequences:
            self.producer.submit(Pending(sequence, 100 * sequence, 5, b"batch %d" % sequence))


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(module, "_FIRST_RETRY_S", 0.0)
    return Bench()


def test_the_ring_is_released_only_up_to_the_first_batch_without_an_answer(bench: Bench) -> None:
    bench.submit(1, 2, 3)
    (client,) = bench.clients
    client.answer(1)
    client.answer(2)
    bench.producer.poll()
    assert bench.acknowledged == []
    client.answer(0)
    bench.producer.poll()
    assert bench.acknowledged == [(3, 300)]
    assert bench.producer.unacknowledged == 0


def test_a_full_client_keeps_the_order_and_is_asked_again(bench: Bench) -> None:
    (client,) = bench.clients
    client.room = 1
    bench.submit(1, 2)
    client.room = 9
    bench.submit(3)
    assert client.payloads == [b"batch 1", b"batch 2", b"batch 3"]
    assert bench.losses.produce__queue_full == 1


@pytest.mark.parametrize("code", [KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError._UNKNOWN_TOPIC])
def test_a_batch_that_fails_is_sent_again_with_all_behind_it(bench: Bench, code: int) -> None:
    bench.submit(1, 2, 3)
    client = bench.clients[0]
    client.answer(0)
    client.answer(1, KafkaError(code))
    bench.producer.poll()
    assert bench.acknowledged == [(1, 100)]
    bench.producer.poll()
    assert client.purged
    assert bench.clients[-1].payloads == [b"batch 2", b"batch 3"]
    assert (bench.losses.produce__failed, bench.losses.produce__recreated) == (1, 1)


def test_a_fatal_error_of_the_client_costs_no_batch(bench: Bench) -> None:
    bench.submit(1)
    bench.clients[0].on_error(KafkaError(KafkaError._FATAL, "out of order", True))
    bench.producer.poll()
    bench.submit(2)
    assert bench.clients[-1].payloads == [b"batch 1", b"batch 2"]
    bench.clients[-1].answer(0)
    bench.clients[-1].answer(1)
    bench.producer.poll()
    assert bench.acknowledged == [(2, 200)]


def test_an_exception_of_produce_is_a_failure_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise KafkaException(KafkaError(KafkaError._FATAL))

    monkeypatch.setattr(bench.clients[0], "produce", refuse)
    bench.submit(1)
    bench.producer.poll()
    assert bench.clients[-1].payloads == [b"batch 1"]


def test_what_is_on_its_way_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNACKNOWLEDGED_BATCHES", 2)
    bench.submit(1, 2)
    assert not bench.producer.has_room()
    bench.clients[0].answer(0)
    bench.producer.poll()
    assert bench.producer.has_room()
    monkeypatch.setattr(module, "MAX_UNACKNOWLEDGED_BYTES", 3)
    assert not bench.producer.has_room()


def test_an_unreachable_broker_is_told_until_it_answers(bench: Bench) -> None:
    bench.submit(1)
    bench.clients[0].on_error(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    assert not bench.producer.reachable
    bench.clients[0].answer(0)
    bench.producer.poll()
    assert bench.producer.reachable


def test_flush_says_how_many_the_broker_did_not_take(bench: Bench) -> None:
    bench.submit(1, 2)
    bench.clients[0].answer(0)
    assert bench.producer.flush(0.05) == 1


def test_what_exactness_rests_on_cannot_be_set_otherwise() -> None:
    config = client_config("b:1", "n", "lz4", {"linger.ms": "500", "ssl.ca.location": "/ca"})
    assert config["ssl.ca.location"] == "/ca"
    assert (config["acks"], config["enable.idempotence"], config["message.timeout.ms"]) == ("all", True, 0)
    assert (config["partitioner"], config["enable.gapless.guarantee"]) == ("murmur2_random", True)


def test_librdkafka_takes_every_setting_and_says_which_it_does_not() -> None:
    kafka_client(client_config("127.0.0.1:9", "n", "zstd", {}))(lambda _: None)
    with pytest.raises(SettingsError, match=r"no\.such\.setting"):
        kafka_client(client_config("127.0.0.1:9", "n", "zstd", {"no.such.setting": "1"}))(lambda _: None)
