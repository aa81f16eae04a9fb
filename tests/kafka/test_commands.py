# SPDX-License-Identifier: Apache-2.0
"""The ``nsp`` commands on a real Kafka."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from schemas.codec import decode_as, encode
from schemas.partition import partition_for
from schemas.signing import SigningKey, VerifyingKeys
from schemas.topics import ENFORCEMENT, TOPICS
from tests.support.topic_io import read_all, write

if TYPE_CHECKING:
    from tests.support.kafka_broker import KafkaBroker

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60
SUBJECT = "process/6f1d0c52-4a3e-4b5e-9a53-0c7de8a4b1f2/4188/8125000000000"


def nsp(broker: KafkaBroker, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nsp", *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        cwd=ROOT,
        env={**os.environ, "NSP_BROKERS": broker.bootstrap},
        input=stdin,
    )


@pytest.fixture
def broker(fresh_kafka: KafkaBroker) -> KafkaBroker:
    fresh_kafka.create_contract_topics()
    return fresh_kafka


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "enforcement.key.pem"
    path.write_bytes(SigningKey.generate().to_pem())
    return path


def orders(broker: KafkaBroker, key_file: Path) -> list[dict[str, Any]]:
    trusted = VerifyingKeys.from_pems([SigningKey.from_file(key_file).public_pem()])
    messages = read_all(broker.bootstrap, ENFORCEMENT.name)
    assert {each.key() for each in messages} == {f"worker-1/{SUBJECT}".encode()}
    assert {each.partition() for each in messages} == {partition_for(b"worker-1", ENFORCEMENT.partitions)}
    return [decode_as("Enforcement", trusted.verify(each.value())) for each in messages]


def test_topics_are_created_once(fresh_kafka: KafkaBroker) -> None:
    first, second = nsp(fresh_kafka, "topics", "create"), nsp(fresh_kafka, "topics", "create")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert first.stdout.count("created") == len(TOPICS)
    assert second.stdout.count("was there") == len(TOPICS)


def test_a_topic_with_other_partitions_is_an_error(broker: KafkaBroker) -> None:
    admin = broker.admin()
    admin.delete_topics([ENFORCEMENT.name])[ENFORCEMENT.name].result(TIMEOUT_S)
    from confluent_kafka.admin import NewTopic  # noqa: PLC0415 - this test alone makes a wrong topic

    deadline = time.monotonic() + TIMEOUT_S
    while ENFORCEMENT.name in admin.list_topics(timeout=TIMEOUT_S).topics:
        assert time.monotonic() < deadline
    broker.create_topics([NewTopic(ENFORCEMENT.name, 2, 1)])
    done = nsp(broker, "topics", "create")
    assert done.returncode == 1
    assert f"{ENFORCEMENT.name} has 2 partitions, not {ENFORCEMENT.partitions}" in done.stderr


def pods_file(*uids: str) -> str:
    return json.dumps(
        {
            "pods": [
                {"uid": each, "namespace": "s", "name": each, "labels": {}, "node": "n", "ips": []}
                | {"containers": []}
                for each in uids
            ]
        }
    )


def test_pods_are_published_and_pruned(broker: KafkaBroker) -> None:
    assert nsp(broker, "inventory", "publish", "-", stdin=pods_file("a", "b")).returncode == 0
    done = nsp(broker, "inventory", "publish", "-", "--prune", stdin=pods_file("b", "c"))
    assert done.returncode == 0, done.stderr
    newest = {each.key(): each.value() for each in read_all(broker.bootstrap, "nsp.pods")}
    assert {key for key, value in newest.items() if value} == {b"b", b"c"}
    assert newest[b"a"] is None


def test_a_wrong_inventory_publishes_nothing(broker: KafkaBroker) -> None:
    text = pods_file("a").replace('"node": "n"', '"node": 7')
    assert nsp(broker, "inventory", "publish", "-", stdin=text).returncode == 1
    assert read_all(broker.bootstrap, "nsp.pods") == []


def test_a_persons_orders_are_signed_and_each_is_newer(broker: KafkaBroker, key_file: Path) -> None:
    options = ["--node", "worker-1", "--key", str(key_file), "--wait", "0"]
    assert nsp(broker, "quarantine", SUBJECT, *options, "--for", "10m").returncode == 0
    assert nsp(broker, "release", SUBJECT, *options, "--reason", "a false alarm").returncode == 0
    cut, lift = orders(broker, key_file)
    assert (cut["quarantined"], lift["quarantined"]) == (True, False)
    assert lift["generation"] > cut["generation"]
    assert cut["expires_at_ns"] - cut["issued_at_ns"] == 600 * 10**9
    assert lift["reason"] == "a false alarm"


def test_silence_of_the_sensor_is_said(broker: KafkaBroker, key_file: Path) -> None:
    done = nsp(broker, "quarantine", SUBJECT, "--node", "worker-1", "--key", str(key_file), "--wait", "0.5")
    assert done.returncode == 1
    assert "no sensor has answered" in done.stderr
    assert len(orders(broker, key_file)) == 1


@pytest.mark.parametrize(("outcome", "status"), [("APPLIED", 0), ("REFUSED", 1)])
def test_the_answer_of_the_sensor_is_told(
    broker: KafkaBroker, key_file: Path, outcome: str, status: int
) -> None:
    def answer() -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not read_all(broker.bootstrap, ENFORCEMENT.name) and time.monotonic() < deadline:
            time.sleep(0.1)
        (order,) = orders(broker, key_file)
        same = ("node", "subject", "generation", "alert_id", "evidence_boot_ns", "issued_at_ns")
        numbers = (
            "applied_boot_ns",
            "first_refused_boot_ns",
            "refused_calls",
            "refused_packets",
            "reported_at_ns",
        )
        record = {
            **{name: order[name] for name in same},
            **dict.fromkeys(numbers, 0),
            "boot_id": "b",
            "outcome": outcome,
            "reason": "no-such-process" if outcome == "REFUSED" else "",
            "processes": 3,
            "sockets": 2,
        }
        key = f"worker-1/{SUBJECT}".encode()
        write(broker.bootstrap, "nsp.enforcement-status", [(key, encode("EnforcementStatus", record))])

    sensor = threading.Thread(target=answer)
    sensor.start()
    done = nsp(broker, "quarantine", SUBJECT, "--node", "worker-1", "--key", str(key_file), "--wait", "30")
    sensor.join()
    assert done.returncode == status, done.stderr
    assert ("3 processes" in done.stdout) == (status == 0)
    assert ("no-such-process" in done.stderr) == (status == 1)


def test_tail_shows_what_is_there_and_names_what_it_cannot_read(broker: KafkaBroker, key_file: Path) -> None:
    nsp(broker, "quarantine", SUBJECT, "--node", "worker-1", "--key", str(key_file), "--wait", "0")
    write(broker.bootstrap, ENFORCEMENT.name, [(b"k", b"garbage"), (b"k", None)])
    done = nsp(broker, "tail", ENFORCEMENT.name, "--from-beginning", "--until-end")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(each) for each in done.stdout.splitlines()]
    (order,) = [each for each in lines if "value" in each]
    assert (order["record"], order["value"]["subject"]) == ("Enforcement", SUBJECT)
    assert order["key_id"] == SigningKey.from_file(key_file).key_id
    assert [each["bytes"] for each in lines if "undecodable" in each] == [7]
    assert sum("tombstone" in each for each in lines) == 1
