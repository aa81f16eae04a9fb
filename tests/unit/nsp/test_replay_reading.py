# SPDX-License-Identifier: Apache-2.0
"""Partitions merged by time, whatever order the client delivers them in."""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING, Any, cast

import pytest
from confluent_kafka import KafkaError

from nsp import replay_reading
from nsp.errors import CommandError
from nsp.replay_reading import EventReader

if TYPE_CHECKING:
    from nsp.kafka import Cluster

MS = 1_000_000
_END = KafkaError(KafkaError._PARTITION_EOF)


class FakeMessage:
    """As the client gives one."""

    def __init__(self, partition: int, offset: int, at_ms: int, *, end: bool = False) -> None:
        self._all = partition, offset, at_ms, end

    def partition(self) -> int:
        return self._all[0]

    def offset(self) -> int:
        return self._all[1]

    def timestamp(self) -> tuple[int, int]:
        return 1, self._all[2]

    def value(self) -> bytes:
        return b"x" * 1000

    def error(self) -> KafkaError | None:
        return _END if self._all[3] else None


class FakeKafka:
    """A cluster and its consumer: partitions of messages by time, delivered in lumps of one partition."""

    def __init__(self, times_ms: dict[int, list[int]], *, silent: bool = False) -> None:
        self.times = times_ms
        self.left = {
            number: deque(FakeMessage(number, offset, at) for offset, at in enumerate(times))
            for number, times in times_ms.items()
        }
        self.paused: set[int] = set()
        self.pauses = 0
        self.silent = silent
        self.closed = False
        self.dice = random.Random(1)

    # The cluster.

    def partitions_of(self, _topic: str) -> int:
        return len(self.times)

    def reader(self, _topic: str, _more: object) -> FakeKafka:
        return self

    def unanswered(self, topic: str) -> CommandError:
        return CommandError(f"{topic} is not delivered")

    # The consumer.

    def offsets_for_times(self, asked: list[Any], timeout: float) -> list[Any]:
        assert timeout
        for each in asked:
            times = self.times[each.partition]
            each.offset = next((number for number, at in enumerate(times) if at >= each.offset), -1)
        return asked

    def get_watermark_offsets(self, place: Any, timeout: float) -> tuple[int, int]:
        assert timeout
        return 0, len(self.times[place.partition])

    def assign(self, places: list[Any]) -> None:
        for each in places:
            for _ in range(each.offset):
                self.left[each.partition].popleft()

    def consume(self, count: int, _timeout: float) -> list[FakeMessage]:
        ready = [number for number, left in self.left.items() if left and number not in self.paused]
        if not ready or self.silent:
            return []
        left = self.left[self.dice.choice(ready)]
        return [left.popleft() for _ in range(min(count, 7, len(left)))]

    def pause(self, places: list[Any]) -> None:
        self.paused |= {each.partition for each in places}
        self.pauses += 1

    def resume(self, places: list[Any]) -> None:
        self.paused -= {each.partition for each in places}

    def close(self) -> None:
        self.closed = True


def read(kafka: FakeKafka, since_ms: int = 0, until_ms: int = 10**9) -> list[int]:
    reader = EventReader(cast("Cluster", kafka), since_ms * MS, until_ms * MS)
    return [each.wall_ns // MS for each in reader.messages()]


def test_the_oldest_comes_first_whatever_partition_it_is_in() -> None:
    times = {0: list(range(0, 300, 3)), 1: list(range(1, 900, 9)), 2: [500, 501], 3: []}
    kafka = FakeKafka(times)
    assert read(kafka) == sorted(at for each in times.values() for at in each)
    assert kafka.closed


def test_a_partition_far_ahead_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_reading, "MAX_AHEAD_BYTES", 5000)
    times = {0: list(range(1000, 2000)), 1: list(range(1000))}
    kafka = FakeKafka(times)
    assert read(kafka) == list(range(2000))
    assert kafka.pauses
    assert not kafka.paused


def test_only_the_time_asked_for_is_read() -> None:
    assert read(FakeKafka({0: list(range(100)), 1: list(range(50, 150))}), 40, 60) == sorted(
        [*range(40, 60), *range(50, 60)]
    )
    assert read(FakeKafka({0: [1, 2, 3]}), 10, 20) == []


def test_a_broker_that_falls_silent_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_reading, "ANSWER_TIMEOUT_S", 0.01)
    kafka = FakeKafka({0: [1, 2]}, silent=True)
    with pytest.raises(CommandError, match="not delivered"):
        read(kafka)
    assert kafka.closed
