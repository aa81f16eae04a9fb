# SPDX-License-Identifier: Apache-2.0
"""The brokers the other tests and the demonstration stand on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from schemas.topics import EVENTS, TOPICS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.kafka_broker import KafkaBroker

WAIT_S = 20.0


def produce(bootstrap: str, value: bytes) -> None:
    """Return once the broker has it."""
    failures: list[object] = []
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "log_level": 0})
    producer.produce(EVENTS.name, value, partition=0, on_delivery=lambda error, _: failures.append(error))
    assert producer.flush(WAIT_S) == 0
    assert failures == [None]


def values(bootstrap: str, count: int) -> list[bytes | None]:
    """The first values of the events topic's first partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none", "enable.auto.commit": False})
    consumer.assign([TopicPartition(EVENTS.name, 0, 0)])
    try:
        return [message.value() for message in consumer.consume(count, WAIT_S)]
    finally:
        consumer.close()


def partitions(bootstrap: str) -> dict[str, int]:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    return {name: len(topic.partitions) for name, topic in admin.list_topics(timeout=WAIT_S).topics.items()}


def test_acknowledged_records_survive_kill_9_on_the_same_address(fresh_kafka: KafkaBroker) -> None:
    fresh_kafka.create_contract_topics()
    produce(fresh_kafka.bootstrap, b"before")
    address = fresh_kafka.bootstrap
    fresh_kafka.kill()
    fresh_kafka.start()
    produce(address, b"after")
    assert values(address, 2) == [b"before", b"after"]


def test_topics_are_made_as_the_table_says(fresh_kafka: KafkaBroker) -> None:
    fresh_kafka.create_contract_topics()
    made = partitions(fresh_kafka.bootstrap)
    assert {name: made[name] for name in TOPICS} == {name: each.partitions for name, each in TOPICS.items()}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in TOPICS]
    admin = fresh_kafka.admin()
    answers = admin.describe_configs(resources)
    for resource, future in answers.items():
        config = future.result(WAIT_S)
        assert config["cleanup.policy"].value == TOPICS[resource.name].cleanup


def test_no_topic_is_made_by_asking_for_it(fresh_kafka: KafkaBroker) -> None:
    producer = Producer(
        {"bootstrap.servers": fresh_kafka.bootstrap, "message.timeout.ms": 1000, "log_level": 0}
    )
    failures: list[object] = []
    producer.produce("no.such", b"x", on_delivery=lambda error, _: failures.append(error))
    producer.flush(WAIT_S)
    assert len(failures) == 1
    assert failures[0] is not None
    assert "no.such" not in partitions(fresh_kafka.bootstrap)


@pytest.fixture
def address_file(tmp_path: Path) -> Path:
    return tmp_path / "address"


def wait_for_address(path: Path, process: subprocess.Popen[str]) -> str:
    deadline = time.monotonic() + WAIT_S
    while not path.exists():
        assert process.poll() is None, "the embedded broker ended"
        assert time.monotonic() < deadline, "the embedded broker gave no address"
        time.sleep(0.02)
    return path.read_text()


def embedded(address_file: Path) -> list[str]:
    return [sys.executable, "-m", "nsp.embedded_broker", "--address-file", str(address_file)]


def test_embedded_broker_has_all_topics_and_keeps_records(address_file: Path) -> None:
    with subprocess.Popen(embedded(address_file), stdout=subprocess.PIPE, text=True) as process:
        address = wait_for_address(address_file, process)
        assert partitions(address) == {name: each.partitions for name, each in TOPICS.items()}
        produce(address, b"value")
        assert values(address, 1) == [b"value"]
        process.terminate()
        assert process.wait(WAIT_S) == 0


def test_embedded_broker_dies_with_its_parent(address_file: Path) -> None:
    command = " ".join(embedded(address_file))
    script = f"{command} >/dev/null & echo $!; read line"
    with subprocess.Popen(
        ["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        wait_for_address(address_file, parent)
        parent.send_signal(signal.SIGKILL)
        parent.wait(WAIT_S)
        deadline = time.monotonic() + WAIT_S
        while runs(child):
            assert time.monotonic() < deadline, "the embedded broker outlived its parent"
            time.sleep(0.02)


def runs(process_id: int) -> bool:
    """Whether the process is there and not a zombie that nobody has collected."""
    try:
        with open(f"/proc/{process_id}/stat") as stat:  # noqa: PTH123 - read and gone, a path object adds nothing
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
