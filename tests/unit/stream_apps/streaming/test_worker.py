# SPDX-License-Identifier: Apache-2.0
"""What becomes of one message."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import generate_latest

from schemas.codec import decode, decode_as, encode
from schemas.partition import partition_for
from schemas.samples import load_samples
from schemas.signing import SigningKey, VerifyingKeys
from schemas.topics import DEAD_LETTER_VALUE_MAX_BYTES
from stream_apps.streaming.errors import OutputLostError
from stream_apps.streaming.message import Message
from stream_apps.streaming.metrics import Metrics
from stream_apps.streaming.worker import Worker
from tests.support.attacks import attack_batch
from tests.support.learning import learner_of, learning, node, shard, take

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_apps.learn.learner import Learner

NOW_NS = 1_790_000_000_500_000_000
PARTITIONS = 6


def sample(name: str, stem: str) -> dict[str, Any]:
    (found,) = [each for each in load_samples(name) if each.path.stem == stem and each.reason is None]
    return found.record()


@dataclass
class Unusable:
    stage: str
    place: str
    reason: str


@dataclass
class Decided:
    alerts: Sequence[Mapping[str, Any]] = ()
    enforcements: Sequence[Mapping[str, Any]] = ()
    waiting: Sequence[Mapping[str, Any]] = ()
    audits: Sequence[Mapping[str, Any]] = ()
    errors: Sequence[Unusable] = ()


@dataclass
class Pipeline:
    """Answers with what the test put in; remembers what it was given."""

    decided: Decided = field(default_factory=Decided)
    error: Exception | None = None
    seen: list[tuple[int, bool]] = field(default_factory=list)
    again: bool = False
    learner: Learner | None = None

    def process(
        self, batch: dict[str, Any], now_ns: int, *, replaying: bool = False, again: bool = False
    ) -> Decided:
        assert now_ns == NOW_NS
        self.again = again
        self.seen.append((batch["sequence"], replaying))
        if self.error:
            raise self.error
        return self.decided

    def tick(self, now_ns: int) -> Decided:
        assert now_ns == NOW_NS
        return self.decided


@dataclass
class Outputs:
    sent: list[tuple[str, bytes, Any, int]] = field(default_factory=list)
    error: Exception | None = None

    async def send(self, topic: str, key: bytes, value: bytes | None, partition: int = -1) -> None:
        if self.error:
            raise self.error
        self.sent.append((topic, key, value, partition))

    @property
    def topics(self) -> list[str]:
        return [each[0] for each in self.sent]

    def letter(self) -> dict[str, Any]:
        (sent,) = self.sent
        assert sent[0] == "nsp.dead-letter"
        assert sent[1] == b"nsp.events"
        return decode_as("DeadLetter", sent[2])


@dataclass
class Bench:
    """A worker with everything around it."""

    pipeline: Pipeline = field(default_factory=Pipeline)
    outputs: Outputs = field(default_factory=Outputs)
    key: SigningKey = field(default_factory=SigningKey.generate)
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.worker = Worker(
            self.pipeline, self.outputs, self.key, PARTITIONS, self.metrics, now_ns=lambda: NOW_NS
        )

    def handle(self, value: bytes | None, key: bytes | None = b"n") -> None:
        asyncio.run(self.worker.handle(Message("nsp.events", 3, 77, key, value)))

    def figure(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def bench() -> Bench:
    return Bench()


BATCH = encode("EventBatch", attack_batch("worker-1", 5, wall_ns=NOW_NS))


def test_enforcement_is_sent_before_alerts_so_that_the_cut_waits_for_nothing(bench: Bench) -> None:
    bench.pipeline.decided = Decided([sample("Alert", "pod")], [sample("Enforcement", "process")])
    bench.handle(BATCH)
    assert bench.outputs.topics == ["nsp.enforcement", "nsp.alerts"]


def test_enforcement_is_signed_and_goes_to_the_partition_of_its_node(bench: Bench) -> None:
    order = sample("Enforcement", "process")
    bench.pipeline.decided = Decided(enforcements=[order])
    bench.handle(BATCH)
    ((_, key, value, partition),) = bench.outputs.sent
    payload = VerifyingKeys.from_pems([bench.key.public_pem()]).verify(value)
    assert decode(payload) == ("Enforcement", order)
    assert key == f"{order['node']}/{order['subject']}".encode()
    assert partition == partition_for(order["node"].encode(), PARTITIONS)


def test_an_alert_is_keyed_by_its_workload(bench: Bench) -> None:
    alert = sample("Alert", "pod")
    bench.pipeline.decided = Decided(alerts=[alert])
    bench.handle(BATCH)
    ((_, key, value, partition),) = bench.outputs.sent
    assert (key, partition) == (alert["workload"]["id"].encode(), -1)
    assert decode_as("Alert", value) == alert


@pytest.mark.parametrize("value", [b"garbage", b"", None, BATCH[:-1], encode("Pod", sample("Pod", "bare"))])
def test_what_is_no_batch_becomes_a_dead_letter_with_its_place(bench: Bench, value: bytes | None) -> None:
    bench.handle(value)
    letter = bench.outputs.letter()
    assert (letter["topic"], letter["partition"], letter["offset"]) == ("nsp.events", 3, 77)
    assert (letter["key"], letter["value"], letter["stage"]) == (b"n", value, "decode")
    assert letter["reason"]
    assert letter["failed_at_ns"] == NOW_NS
    assert bench.pipeline.seen == []
    assert bench.figure("nsp_stream_dead_letters_total", topic="nsp.events", stage="decode") == 1


def test_a_batch_that_breaks_the_pipeline_is_buried_with_the_line_of_code(bench: Bench) -> None:
    bench.pipeline.error = ZeroDivisionError("by nothing")
    bench.handle(BATCH)
    letter = bench.outputs.letter()
    assert letter["stage"] == "detect"
    assert "ZeroDivisionError: by nothing" in letter["reason"]
    assert "test_worker.py" in letter["reason"]
    assert letter["value"] == BATCH


def test_the_stage_of_a_pipeline_error_is_kept(bench: Bench) -> None:
    class CorrelateError(Exception):
        stage = "correlate"

    bench.pipeline.error = CorrelateError("no such process")
    bench.handle(BATCH)
    assert bench.outputs.letter()["stage"] == "correlate"


def test_after_a_bad_message_the_next_one_is_processed(bench: Bench) -> None:
    bench.handle(b"garbage")
    bench.handle(BATCH)
    assert bench.pipeline.seen == [(5, False)]


def test_an_alert_that_cannot_be_written_does_not_hold_back_the_cut(bench: Bench) -> None:
    broken = {**sample("Alert", "pod"), "severity": "UNHEARD-OF"}
    bench.pipeline.decided = Decided([broken], [sample("Enforcement", "process")])
    bench.handle(BATCH)
    assert bench.outputs.topics == ["nsp.enforcement", "nsp.dead-letter"]
    assert decode_as("DeadLetter", bench.outputs.sent[1][2])["stage"] == "respond"


def test_parts_that_cannot_be_used_are_kept_and_the_rest_is_published(bench: Bench) -> None:
    errors = [Unusable("correlate", "events[3]", "no such process"), Unusable("detect", "events[4]", "odd")]
    bench.pipeline.decided = Decided([sample("Alert", "pod")], errors=errors)
    bench.handle(BATCH)
    assert bench.outputs.topics == ["nsp.alerts", "nsp.dead-letter"]
    letter = decode_as("DeadLetter", bench.outputs.sent[1][2])
    assert letter["stage"] == "correlate"
    assert letter["reason"] == "correlate, events[3]: no such process\ndetect, events[4]: odd"
    assert bench.figure("nsp_stream_messages_total", topic="nsp.events", outcome="partly") == 1


def test_what_time_brings_is_published_too(bench: Bench) -> None:
    enforcement = sample("Enforcement", "workload-destinations")
    bench.pipeline.decided = Decided([sample("Alert", "pod")], [enforcement])
    asyncio.run(bench.worker.tick())
    assert bench.outputs.topics == ["nsp.enforcement", "nsp.alerts"]


def test_a_long_value_is_cut_so_that_its_letter_fits(bench: Bench) -> None:
    bench.handle(b"x" * (DEAD_LETTER_VALUE_MAX_BYTES + 1), key=b"k" * 100_000)
    letter = bench.outputs.letter()
    assert len(letter["value"]) == DEAD_LETTER_VALUE_MAX_BYTES
    assert len(letter["key"]) < 10_000


def test_a_lost_output_is_not_swallowed(bench: Bench) -> None:
    bench.outputs.error = OutputLostError("no permission")
    bench.pipeline.decided = Decided([sample("Alert", "pod")])
    with pytest.raises(OutputLostError):
        bench.handle(BATCH)


def test_reading_back_reaches_the_pipeline_and_nothing_else(bench: Bench) -> None:
    bench.pipeline.decided = Decided([sample("Alert", "pod")], [sample("Enforcement", "process")])
    for value in (BATCH, b"garbage", None):
        bench.worker.remember(Message("nsp.events", 0, 1, None, value))
    assert bench.pipeline.seen == [(5, True)]
    assert bench.outputs.sent == []
    assert bench.figure("nsp_stream_replayed_total") == 1


def test_figures_follow_the_events(bench: Bench) -> None:
    bench.pipeline.decided = Decided([sample("Alert", "pod")], [sample("Enforcement", "process")])
    bench.handle(BATCH)
    assert bench.figure("nsp_stream_messages_total", topic="nsp.events", outcome="processed") == 1
    assert bench.figure("nsp_stream_events_total") == len(decode_as("EventBatch", BATCH)["events"])
    assert bench.figure("nsp_stream_enforcements_total") == 1
    assert b"nsp_stream_process_seconds_count 1.0" in generate_latest(bench.metrics.registry)


def test_what_was_learned_is_published_under_its_key_and_withdrawn_with_a_tombstone(bench: Bench) -> None:
    through, on = learning(), node()
    on.connect(on.service("/usr/bin/web"), "198.51.100.7", 443)
    take(through, on)
    bench.pipeline.learner = through.learner
    asyncio.run(bench.worker.publish_learned())
    ((topic, key, value, partition),) = bench.outputs.sent
    assert (topic, key, partition) == ("nsp.observations", b"shop/Deployment/shop/worker-1", -1)
    assert decode_as("Observations", value)["behaviours"][0]["peer"] == "198.51.100.7/32"
    learner_of(through).read_back(key, None, on.wall_ns)
    asyncio.run(bench.worker.publish_learned())
    assert bench.outputs.sent[1:] == [("nsp.observations", key, None, -1)]


def test_what_cannot_be_written_is_counted_and_the_rest_is_published(bench: Bench) -> None:
    through = learning()
    for name in ("worker-1", "worker-2"):
        on = node(name)
        on.connect(on.service("/usr/bin/web"), "198.51.100.7", 443)
        take(through, on)
    shard(through).beyond["evidence"] = 1 << 70
    bench.pipeline.learner = through.learner
    asyncio.run(bench.worker.publish_learned())
    assert [key for _, key, _, _ in bench.outputs.sent] == [b"shop/Deployment/shop/worker-2"]
    assert learner_of(through).counts["unwritable"] == 1
