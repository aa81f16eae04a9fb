# SPDX-License-Identifier: Apache-2.0
"""Enforcement on a real broker, with the kernel in memory: read from the start, obeyed, acknowledged."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from schemas.codec import decode_as, encode
from schemas.partition import partition_for
from schemas.signing import SigningKey
from schemas.subject import enforcement_key
from schemas.topics import ENFORCEMENT, ENFORCEMENT_STATUS
from sensor.enforce.agent import EnforcementAgent
from tests.support.fake_enforcement import FakeMaps, FakeWorkloads, NoProfiles, Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.kafka_broker import KafkaBroker

WAIT_S = 60.0
KEY = SigningKey.generate()
BOOT = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
SHELL = f"process/{BOOT}/20/1020"


def wait_for(what: Callable[[], Any], why: str) -> Any:
    deadline = time.monotonic() + WAIT_S
    while not (found := what()):
        assert time.monotonic() < deadline, why
        time.sleep(0.01)
    return found


@dataclass
class Node:
    """A node with init 1, a shell 20 and a tool 21; its name gives it statuses of its own."""

    bootstrap: str
    name: str
    key_file: Path
    maps: FakeMaps = field(default_factory=FakeMaps)
    recorder: Recorder = field(default_factory=Recorder)

    def __post_init__(self) -> None:
        self.key_file.write_bytes(KEY.public_pem())
        for tgid, parent in ((1, None), (20, 1), (21, 20)):
            self.maps.spawn(tgid, parent)
        self.producer = Producer({"bootstrap.servers": self.bootstrap, "log_level": 0})

    @contextlib.contextmanager
    def agent(self) -> Iterator[EnforcementAgent]:
        settings = SimpleNamespace(
            node=self.name,
            brokers=self.bootstrap,
            kafka_options={"log_level": "0"},
            enforcement_public_keys=(self.key_file,),
            protected_executables=(),
            break_glass=(),
        )
        kernel = SimpleNamespace(state=self.maps)
        started = EnforcementAgent(kernel, FakeWorkloads(pod=(7,)), settings, self.recorder, NoProfiles())
        started.start()
        try:
            yield started
        finally:
            started.stop()
            assert not started.alive

    def value(self, subject: str = SHELL, **changes: Any) -> bytes:
        now = time.time_ns()
        record = {
            "node": self.name, "subject": subject, "generation": 1, "issued_at_ns": now,
            "expires_at_ns": now + 600 * 10**9, "quarantined": True, "blocked_destinations": [],
            "alert_id": "a", "reason": "", "evidence_boot_ns": 1, **changes,
        }  # fmt: skip
        return KEY.sign(encode("Enforcement", record))

    def publish(self, value: bytes | None, subject: str = SHELL) -> None:
        partition = partition_for(self.name.encode(), ENFORCEMENT.partitions)
        key = enforcement_key(self.name, subject)
        self.producer.produce(ENFORCEMENT.name, value, key, partition=partition)
        assert self.producer.flush(WAIT_S) == 0

    def statuses(self, count: int) -> list[tuple[str, int]]:
        """Outcome and generation of this node's first so many statuses, in their order.

        One that comes again right behind itself counts once: the producer repeats what a dying broker took
        without an answer, as the contract allows.
        """
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "test", "log_level": 0})
        partitions = range(ENFORCEMENT_STATUS.partitions)
        consumer.assign(
            [TopicPartition(ENFORCEMENT_STATUS.name, each, OFFSET_BEGINNING) for each in partitions]
        )
        found: list[tuple[str, int]] = []
        deadline = time.monotonic() + WAIT_S
        while len(found) < count and time.monotonic() < deadline:
            message = consumer.poll(0.2)
            if message is None or message.error():
                continue
            record = decode_as("EnforcementStatus", message.value() or b"")
            assert message.key() == enforcement_key(record["node"], record["subject"])
            status = record["outcome"], record["generation"]
            if record["node"] == self.name and (status[0] == "REFUSED" or found[-1:] != [status]):
                found.append(status)
        consumer.close()
        return found


@pytest.fixture(scope="module")
def contract(kafka: KafkaBroker) -> KafkaBroker:
    topics = kafka.admin().list_topics(timeout=WAIT_S).topics
    if ENFORCEMENT.name not in topics:
        kafka.create_contract_topics()
    return kafka


@pytest.fixture
def node(contract: KafkaBroker, tmp_path: Path, request: pytest.FixtureRequest) -> Node:
    return Node(contract.bootstrap, f"node-{request.node.name}".replace("_", "-"), tmp_path / "key.pem")


def test_orders_are_carried_out_and_acknowledged_in_order(node: Node) -> None:
    with node.agent() as agent:
        node.publish(node.value(generation=1))
        wait_for(node.maps.cut_processes, "the tree was not cut")
        assert node.maps.cut_processes() == {20, 21}
        assert agent.in_force == 1
        node.publish(node.value(generation=2, quarantined=False))
        wait_for(lambda: not node.maps.cut_processes(), "the tree was not freed")
        assert node.statuses(2) == [("APPLIED", 1), ("ENDED", 2)]


def test_a_restarted_sensor_ends_up_as_the_topic_says(node: Node) -> None:
    with node.agent() as agent:
        node.publish(node.value(generation=1))
        wait_for(node.maps.cut_processes, "the tree was not cut")
        wait_for(lambda: agent.ready, "the history was not read")
    assert node.maps.cut_processes() == {20, 21}, "stopping a sensor must not end enforcement"
    node.publish(node.value("workload/pod", generation=1), "workload/pod")
    node.publish(node.value(generation=3, quarantined=False))
    node.publish(node.value(generation=2))
    with node.agent() as agent:
        wait_for(lambda: agent.ready, "the history was not read")
        assert node.maps.cut_processes() == set()
        assert node.maps.cgroup_quarantines.keys() == {7}
        assert agent.refused == {"replayed": 1}


def test_what_is_not_signed_for_this_node_is_refused_reported_and_not_obeyed(node: Node) -> None:
    with node.agent() as agent:
        wait_for(lambda: agent.ready, "the history was not read")
        node.publish(b"junk")
        node.publish(SigningKey.generate().sign(b"payload"))
        node.publish(node.value(node="elsewhere"))
        wait_for(lambda: sum(agent.refused.values()) == 3, "not all were refused")
        assert agent.refused == {"malformed": 1, "unknown-key": 1, "foreign": 1}
        assert node.maps.cut_processes() == set()
        assert [kind for kind, _, _ in node.recorder.notices] == ["ENFORCEMENT_REFUSED"] * 3
        assert [outcome for outcome, _ in node.statuses(3)] == ["REFUSED"] * 3


def test_the_first_refusal_follows_the_acknowledgement(node: Node) -> None:
    with node.agent():
        node.publish(node.value(generation=5))
        wait_for(node.maps.cut_processes, "the tree was not cut")
        root = next(iter(node.maps.process_quarantines))
        node.maps.refuse(root, 99)
        assert node.statuses(2) == [("APPLIED", 5), ("FIRST_REFUSAL", 5)]


def test_an_order_after_the_broker_was_away_is_obeyed(fresh_kafka: KafkaBroker, tmp_path: Path) -> None:
    node = Node(fresh_kafka.bootstrap, "node-a", tmp_path / "key.pem")
    with node.agent() as agent:
        wait_for(lambda: agent.counters.get("topic_missing"), "the missing topic was not noticed")
        fresh_kafka.create_contract_topics()
        wait_for(lambda: agent.ready, "the topic was not found when it appeared")
        node.publish(node.value(generation=1))
        wait_for(node.maps.cut_processes, "the tree was not cut")
        fresh_kafka.kill()
        wait_for(lambda: agent.counters.get("broker_error"), "the loss of the broker was not noticed")
        assert node.maps.cut_processes() == {20, 21}
        fresh_kafka.start()
        node.publish(node.value(generation=2, quarantined=False))
        wait_for(lambda: not node.maps.cut_processes(), "the tree was not freed")
        assert node.statuses(2) == [("APPLIED", 1), ("ENDED", 2)]
