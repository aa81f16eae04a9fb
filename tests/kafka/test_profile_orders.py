# SPDX-License-Identifier: Apache-2.0
"""From nsp.profiles and nsp.pods to signed orders, by the real stream app on a real Kafka."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from schemas.codec import decode, encode
from schemas.partition import partition_for
from schemas.signing import SigningKey, VerifyingKeys
from schemas.subject import enforcement_key
from schemas.topics import ENFORCEMENT
from tests.support.batches import pod_record
from tests.support.profiles import profile
from tests.support.stream_process import StreamProcess
from tests.support.topic_io import read_all, read_records, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.kafka_broker import KafkaBroker

NODES = 6
WAIT_S = 60.0
Record = dict[str, Any]


class Scene:
    """A broker, one key, and stream apps."""

    def __init__(self, broker: KafkaBroker, directory: Path) -> None:
        self.bootstrap = broker.bootstrap
        self.key = SigningKey.generate()
        self.apps: list[StreamProcess] = []
        self._directory = directory

    def app(self) -> StreamProcess:
        """Start a stream app and wait until it works."""
        self.apps.append(StreamProcess(self._directory / str(len(self.apps)), self.bootstrap, self.key))
        self.apps[-1].start_and_wait()
        return self.apps[-1]

    def apply(self, record: Record) -> None:
        key = f"{record['namespace']}/{record['name']}".encode()
        write(self.bootstrap, "nsp.profiles", [(key, encode("SecurityProfile", record))])

    def delete(self, key: str) -> None:
        write(self.bootstrap, "nsp.profiles", [(key.encode(), None)])

    def publish_pods(self) -> None:
        pods = [pod(each) for each in range(NODES)]
        write(self.bootstrap, "nsp.pods", [(each["uid"].encode(), encode("Pod", each)) for each in pods])

    def orders(self) -> list[tuple[str, Record]]:
        """Every order on the topic, verified: signed by our key, under its key, on its node's partition."""
        trusted = VerifyingKeys.from_pems([self.key.public_pem()])
        found = []
        for message in read_all(self.bootstrap, "nsp.enforcement"):
            name, order = decode(trusted.verify(message.value()))
            assert message.key() == enforcement_key(order["node"], order["subject"])
            assert message.partition() == partition_for(order["node"].encode(), ENFORCEMENT.partitions)
            found.append((name, order))
        return found

    def wait(self, condition: Callable[[list[tuple[str, Record]]], bool], what: str) -> list[Any]:
        deadline = time.monotonic() + WAIT_S
        while not condition(orders := self.orders()):
            logs = "\n".join(each.log_tail() for each in self.apps)
            assert time.monotonic() < deadline, f"{what}: {orders}\n{logs}"
            time.sleep(0.1)
        return orders


@pytest.fixture
def scene(fresh_kafka: KafkaBroker, tmp_path: Path) -> Iterator[Scene]:
    fresh_kafka.create_contract_topics()
    made = Scene(fresh_kafka, tmp_path)
    yield made
    for each in made.apps:
        each.kill()


def pod(number: int) -> Record:
    return pod_record(uid=f"uid-{number}", node=f"node-{number}", namespace="default", containers=[])


def newest(orders: list[tuple[str, Record]]) -> dict[tuple[str, str], Record]:
    return {(each["node"], each["subject"]): each for _, each in orders}


def generations_told(orders: list[tuple[str, Record]], generation: int) -> int:
    """How many nodes were last told this generation of the profile."""
    profiles = [each["profile"] for each in newest(orders).values() if each.get("profile")]
    return sum(each["generation"] == generation for each in profiles)


def test_two_processes_tell_every_node_once_and_a_restart_tells_nothing_again(scene: Scene) -> None:
    scene.apply(profile())
    scene.publish_pods()
    scene.app()
    scene.wait(lambda orders: len(orders) == 2 * NODES, "orders to all nodes")
    second = scene.app()
    scene.apply(profile(generation=2))
    orders = scene.wait(lambda orders: generations_told(orders, 2) == NODES, "the new generation everywhere")
    # While partitions move, a node may be told the same by both: by the same number.
    numbers = [(each["node"], each["subject"], each["generation"]) for _, each in orders]
    assert len(set(numbers)) == 3 * NODES
    scene.apps[0].kill()
    second.kill()
    scene.app()
    scene.apply(profile(generation=3))
    after = scene.wait(lambda orders: generations_told(orders, 3) == NODES, "generation 3 everywhere")
    assert len(after) == len(orders) + NODES
    scene.delete("default/web")
    scene.wait(
        lambda orders: sum(bool(each.get("removed")) for each in newest(orders).values()) == NODES, "removals"
    )


def test_a_bad_profile_is_a_dead_letter_and_the_one_before_it_stays(scene: Scene) -> None:
    scene.publish_pods()
    scene.app()
    scene.apply(profile())
    scene.wait(lambda orders: generations_told(orders, 1) == NODES, "the profile everywhere")
    wrong = profile(generation=2) | {"expires_at_ns": -1}
    values = [b"garbage", encode("SecurityProfile", wrong)]
    write(scene.bootstrap, "nsp.profiles", [(b"default/web", value) for value in values])
    scene.apply(profile("second"))
    orders = scene.wait(lambda orders: len(orders) == 3 * NODES, "the second profile everywhere")
    assert generations_told(orders, 2) == 0
    letters = read_records(scene.bootstrap, "nsp.dead-letter")
    assert [each["value"] for each in letters] == values
    assert {each["topic"] for each in letters} == {"nsp.profiles"}
    assert "expires_at_ns" in letters[1]["reason"]
