# SPDX-License-Identifier: Apache-2.0
"""The real stream app on a real Kafka: what comes out, and what is never lost."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from schemas.codec import decode_as, encode
from schemas.partition import partition_for
from schemas.samples import load_samples
from schemas.signing import SigningKey, VerifyingKeys
from schemas.topics import ENFORCEMENT, EVENTS, TOPICS
from tests.support.attacks import attack_batch
from tests.support.stream_process import GROUP, StreamProcess
from tests.support.topic_io import committed, read_all, read_records, write, write_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from tests.support.kafka_broker import KafkaBroker

NODES = 5
OUTPUT_TIMEOUT_S = 60.0


@pytest.fixture
def broker(fresh_kafka: KafkaBroker) -> KafkaBroker:
    fresh_kafka.create_contract_topics()
    return fresh_kafka


@pytest.fixture
def stream_app(broker: KafkaBroker, tmp_path: Path) -> Iterator[Callable[[str], StreamProcess]]:
    """Makes stream apps on the test's broker; all end with the test."""
    made: list[StreamProcess] = []
    key = SigningKey.generate()

    def make(name: str = "one", instance: str | None = None) -> StreamProcess:
        made.append(StreamProcess(tmp_path / name, broker.bootstrap, key, instance))
        return made[-1]

    yield make
    for each in made:
        each.kill()


def attacks(numbers: Iterable[int]) -> list[dict[str, Any]]:
    """Attack ``number`` happens on node ``number % NODES``; numbers of a node follow each other."""
    return [attack_batch(f"node-{each % NODES}", each // NODES + 1) for each in numbers]


def names(alerts: Iterable[dict[str, Any]]) -> Counter[tuple[str, int]]:
    """Which attack each alert is about: node, and process that acted."""
    return Counter((each["node"], each["lineage"][0]["tgid"]) for each in alerts)


def told(bootstrap: str) -> list[dict[str, Any]]:
    """The alerts about the attacks; other rules have their word too, and so have audit events."""
    alerts = read_records(bootstrap, "nsp.alerts")
    return [each for each in alerts if each["rule_id"] == "nsp.rce-egress" and each["audit"] is None]


def alerts_when(bootstrap: str, count: int, app: StreamProcess) -> list[dict[str, Any]]:
    """The alerts, when so many different attacks are among them."""
    deadline = time.monotonic() + OUTPUT_TIMEOUT_S
    while True:
        alerts = told(bootstrap)
        if len(names(alerts)) >= count:
            return alerts
        assert time.monotonic() < deadline, f"{len(names(alerts))} of {count}:\n{app.log_tail()}"
        time.sleep(0.2)


def wait_for(condition: Callable[[], bool], what: str, app: StreamProcess) -> None:
    deadline = time.monotonic() + OUTPUT_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}:\n{app.log_tail()}"
        time.sleep(0.1)


def assert_same_alert_same_id(alerts: list[dict[str, Any]]) -> None:
    ids: dict[tuple[str, int], set[str]] = {}
    for each in alerts:
        ids.setdefault((each["node"], each["lineage"][0]["tgid"]), set()).add(each["id"])
    assert [name for name, several in ids.items() if len(several) != 1] == []
    assert len(ids) == len({each["id"] for each in alerts})


def assert_one_response_each(broker: KafkaBroker, key: SigningKey, count: int) -> None:
    """Each attack was answered by one order; what comes again has its generation, which sensors refuse."""
    keys = VerifyingKeys.from_pems([key.public_pem()])
    generations: dict[bytes, set[int]] = {}
    for each in read_all(broker.bootstrap, ENFORCEMENT.name):
        if each.value() and b"/process/" in each.key():
            order = decode_as("Enforcement", keys.verify(each.value()))
            generations.setdefault(each.key(), set()).add(order["generation"])
    assert len(generations) == count
    assert [key for key, several in generations.items() if len(several) != 1] == []


def test_an_exploit_becomes_an_alert_and_a_signed_cut_for_its_node(
    broker: KafkaBroker, stream_app: Callable[..., StreamProcess]
) -> None:
    pod = next(each.record() for each in load_samples("Pod") if each.path.stem == "running")
    batch = attack_batch("worker-1", 1)
    pod["uid"] = batch["workloads"][1]["pod_uid"]
    write(broker.bootstrap, "nsp.pods", [(pod["uid"].encode(), encode("Pod", pod))])
    app = stream_app()
    app.start_and_wait()
    write_batches(broker.bootstrap, [batch])
    (alert,) = alerts_when(broker.bootstrap, 1, app)
    assert alert["rule_id"] == "nsp.rce-egress"
    assert (alert["workload"]["pod"], alert["workload"]["namespace"]) == (pod["name"], pod["namespace"])
    assert alert["response"]["decision"] == "issued"
    # Beside what the node is told of its pods.
    (message,) = (
        each
        for each in read_all(broker.bootstrap, "nsp.enforcement")
        if each.key().decode().startswith("worker-1/process/")
    )
    order = decode_as("Enforcement", VerifyingKeys.from_pems([app.key.public_pem()]).verify(message.value()))
    assert order["alert_id"] == alert["id"]
    assert order["quarantined"] is True
    assert message.key().decode() == f"worker-1/{order['subject']}"
    assert message.partition() == partition_for(b"worker-1", ENFORCEMENT.partitions)
    assert app.stop() == 0, app.log_tail()


def test_garbage_is_kept_with_its_place_and_the_next_batch_is_processed(
    broker: KafkaBroker, stream_app: Callable[..., StreamProcess]
) -> None:
    app = stream_app()
    app.start_and_wait()
    garbage: list[tuple[bytes | None, bytes | None]] = [
        (b"node-0", b"garbage"),
        (b"node-0", None),
        (None, b"\xc3\x01short"),
        (b"node-0", encode("EventBatch", attack_batch("node-0", 1))[:-3]),
    ]
    write(broker.bootstrap, "nsp.events", garbage)
    write_batches(broker.bootstrap, attacks(range(1)))
    alerts_when(broker.bootstrap, 1, app)
    wait_for(lambda: app.metric("nsp_stream_output_queue ") == 0, "outputs are delivered", app)
    letters = read_records(broker.bootstrap, "nsp.dead-letter")
    assert sorted((each["value"] or b"") for each in letters) == sorted((each[1] or b"") for each in garbage)
    assert {(each["topic"], each["stage"]) for each in letters} == {("nsp.events", "decode")}
    assert all(each["reason"] for each in letters)
    page_line = 'nsp_stream_dead_letters_total{stage="decode",topic="nsp.events"}'
    assert app.metric(page_line) == len(garbage)
    assert app.stop() == 0, app.log_tail()
    assert sum(committed(broker.bootstrap, GROUP, EVENTS.name).values()) == len(garbage) + 1


@pytest.mark.parametrize(
    "instance",
    [pytest.param(None, id="member"), pytest.param("stream-0", id="static-member", marks=pytest.mark.chaos)],
)
def test_kill_9_loses_nothing_below_the_committed_offset(
    broker: KafkaBroker, stream_app: Callable[..., StreamProcess], instance: str | None
) -> None:
    count = 2000
    app = stream_app(instance=instance)
    app.start_and_wait()
    write_batches(broker.bootstrap, attacks(range(count)))
    for enough in (count // 4, count // 2):
        alerts_when(broker.bootstrap, enough, app)
        app.kill()
        by_node = _committed_numbers(broker.bootstrap)
        said = names(told(broker.bootstrap))
        assert [name for name in by_node if name not in said] == []
        app.start_and_wait()
    alerts = alerts_when(broker.bootstrap, count, app)
    assert len(names(alerts)) == count
    assert_same_alert_same_id(alerts)
    assert_one_response_each(broker, app.key, count)
    assert app.stop() == 0, app.log_tail()
    assert sum(committed(broker.bootstrap, GROUP, EVENTS.name).values()) == count


def _committed_numbers(bootstrap: str) -> list[tuple[str, int]]:
    """The attacks in batches below the committed offsets, named as their alerts are."""
    ends = committed(bootstrap, GROUP, EVENTS.name)
    batches = [
        decode_as("EventBatch", each.value())
        for each in read_all(bootstrap, EVENTS.name)
        if each.offset() < ends.get(each.partition(), 0)
    ]
    return [(each["node"], each["processes"][-1]["tgid"]) for each in batches]


def test_a_broker_that_goes_and_comes_costs_nothing(
    broker: KafkaBroker, stream_app: Callable[..., StreamProcess]
) -> None:
    app = stream_app()
    app.start_and_wait()
    write_batches(broker.bootstrap, attacks(range(200)))
    broker.stop()
    time.sleep(2)  # longer than a fetch and a commit take: both meet a broker that is away
    broker.start()
    write_batches(broker.bootstrap, attacks(range(200, 400)))
    alerts_when(broker.bootstrap, 201, app)
    broker.kill()
    broker.start()
    write_batches(broker.bootstrap, attacks(range(400, 600)))
    alerts = alerts_when(broker.bootstrap, 600, app)
    assert len(names(alerts)) == 600
    assert_same_alert_same_id(alerts)
    assert_one_response_each(broker, app.key, 600)
    assert app.running


def test_two_processes_share_the_work_and_one_leaves(
    broker: KafkaBroker, stream_app: Callable[..., StreamProcess]
) -> None:
    one, two = stream_app("one"), stream_app("two")
    one.start_and_wait()
    write_batches(broker.bootstrap, attacks(range(300)))
    two.start_and_wait()
    write_batches(broker.bootstrap, attacks(range(300, 900)))
    done = 'nsp_stream_messages_total{outcome="processed",topic="nsp.events"}'
    wait_for(lambda: two.metric(done) > 0, "the second gets a share", two)
    assert one.stop() == 0
    write_batches(broker.bootstrap, attacks(range(900, 1200)))
    alerts = alerts_when(broker.bootstrap, 1200, two)
    assert len(names(alerts)) == 1200
    assert_same_alert_same_id(alerts)
    assert_one_response_each(broker, two.key, 1200)
    assert two.stop() == 0, two.log_tail()
    assert sum(committed(broker.bootstrap, GROUP, EVENTS.name).values()) == 1200


def test_it_waits_for_a_broker_and_can_be_stopped_meanwhile(
    broker: KafkaBroker, stream_app: Callable[..., StreamProcess]
) -> None:
    broker.stop()
    app = stream_app()
    app.start()
    wait_for(lambda: app.health() == "waiting for Kafka", "it says what it waits for", app)
    assert app.stop() == 0, app.log_tail()
    app.start()
    wait_for(lambda: app.health() == "waiting for Kafka", "it waits again", app)
    broker.start()
    app.wait_until_healthy()
    write_batches(broker.bootstrap, attacks(range(1)))
    alerts_when(broker.bootstrap, 1, app)


def test_an_output_the_broker_refuses_for_good_ends_the_process_before_the_commit(
    broker: KafkaBroker, stream_app: Callable[..., StreamProcess]
) -> None:
    app = stream_app()
    app.start_and_wait()
    admin = broker.admin()
    admin.delete_topics(["nsp.alerts"])["nsp.alerts"].result(OUTPUT_TIMEOUT_S)
    write_batches(broker.bootstrap, attacks(range(3)))
    assert app.wait(OUTPUT_TIMEOUT_S) == 1
    assert "refused an output to nsp.alerts" in app.log_tail()
    assert committed(broker.bootstrap, GROUP, EVENTS.name) == {}


def test_missing_topics_are_named_with_the_cure(fresh_kafka: KafkaBroker, tmp_path: Path) -> None:
    app = StreamProcess(tmp_path / "app", fresh_kafka.bootstrap)
    app.start()
    assert app.wait(OUTPUT_TIMEOUT_S) == 1
    assert all(name in app.log_tail() for name in TOPICS)
    assert "nsp topics create" in app.log_tail()
