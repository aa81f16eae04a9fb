# SPDX-License-Identifier: Apache-2.0
"""The whole loop on a real Kafka and the running kernel, for the end-to-end and the chaos tests.

The scene is the demonstration's (hosts, shop, customer, attacker); what happened is read from the topics,
from the attacker's own log and from the customer's own counts.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import Producer

from demo.attack import boot_to_wall_ns
from demo.observer import Observer
from demo.scene import Reader, Scene
from demo.story import wait_until_quiet
from schemas.topics import TOPICS
from stream_apps.correlate.ledger import LossLedger, Totals

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.kafka_broker import KafkaBroker

CUT_TIMEOUT_S = 60.0
FLUSH_TIMEOUT_S = 30.0
# No Avro at all, an unknown fingerprint, an end in the middle of the header, nothing.
GARBAGE = (b"garbage", b"\xc3\x01" + bytes(8) + b"garbage", b"\xc3\x01\x00", b"")


@dataclass(slots=True)
class ClosedLoop:
    """A running loop under attack, or about to be."""

    scene: Scene
    observer: Observer
    customer: Reader
    attacker: Reader

    def attack(self) -> None:
        """Exploit the shop and wait until the attacker has a shell, or was cut before it opened."""
        self.attacker.tell("go")
        self.scene.wait(
            "the attacker's shell or its cut",
            lambda: self.attacker.has("shell") or self.observer.status("APPLIED") is not None,
        )

    def pour_garbage(self) -> None:
        """Write what nobody can read to every partition of every topic."""
        producer = Producer({"bootstrap.servers": self.scene.brokers, "acks": "all", "log_level": 0})
        for topic in TOPICS.values():
            for partition in range(topic.partitions):
                for value in GARBAGE:
                    producer.produce(topic.name, value, b"garbage", partition)
        assert producer.flush(FLUSH_TIMEOUT_S) == 0

    def wait_for(self, outcome: str) -> dict[str, Any]:
        """Wait for an enforcement status with this outcome and return the first."""
        self.scene.wait(outcome, lambda: self.observer.status(outcome) is not None, CUT_TIMEOUT_S)
        status = self.observer.status(outcome)
        assert status is not None
        return status

    def alerts(self) -> list[dict[str, Any]]:
        """Alerts about our own pods: the sensor sees all processes of the machine, other runs' too."""
        ours = {pod.uid for pod in self.scene.pods.values()}
        return [each for each in self.observer.read().alerts.values() if each["workload"]["id"] in ours]

    def leaked_after(self, boot_ns: int) -> list[dict[str, Any]]:
        """What reached the attacker after a time of the boot clock: bytes, beacons, shells."""
        wall_ns = boot_ns + boot_to_wall_ns()
        return [line for line in self.attacker.lines if line.get("at_wall_ns", 0) > wall_ns]

    def finish(self) -> Totals:
        """End customer and sensor, read everything there is, and draw the account."""
        self.scene.end("workload client")
        self.scene.end("sensor")
        wait_until_quiet(self.observer)
        ledger = LossLedger()
        for batch in self.observer.read().batches:
            ledger.add(batch)
        return ledger.totals()


@contextmanager
def closed_loop(broker: KafkaBroker, logs: Path) -> Iterator[ClosedLoop]:
    """Run shop, customer, attacker, sensor and stream app on a broker without topics yet."""
    broker.create_contract_topics()
    with Scene(logs) as scene:
        scene.brokers = broker.bootstrap
        scene.prepare()
        scene.start_stream()
        scene.start_sensor()
        scene.wait_until_sensor_is_healthy()
        scene.wait_until_stream_is_healthy()
        names = {pod.uid: name for name, pod in scene.pods.items()}
        with Observer(scene.brokers, names) as observer:
            customer = scene.start_shop(observer)
            yield ClosedLoop(scene, observer, customer, scene.start_attacker())
