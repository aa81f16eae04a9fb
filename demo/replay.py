# SPDX-License-Identifier: Apache-2.0
"""Where the kernel part cannot run: the recorded events of a real run, through the real stream app.

The broker, the stream app, its detection and its signed enforcement are real; nobody applies the
enforcement, and the notice says so. The recorded clock is moved to now, otherwise the stream app
would rightly record the responses as expired instead of issuing them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, Producer, TopicPartition

from demo.errors import DemoError
from demo.observer import Observer
from demo.recording import load
from demo.report import Report
from demo.scene import Scene
from demo.story import RULE, wait_until_quiet
from schemas.codec import decode_as, encode
from schemas.topics import ENFORCEMENT
from stream_apps.correlate.ledger import LossLedger

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from demo.screen import Screen

NOTICE = """\
Recorded events are played through the real broker, stream app, detectors and signatures.
Not real here: the kernel, the attack, the cut, the acknowledgement: their figures are absent (0)."""
ALERT_TIMEOUT_S = 30.0
DELIVERY_TIMEOUT_S = 30.0
READ_TIMEOUT_S = 10.0


def replay(screen: Screen, build: Path, recording: Path) -> Report:
    """Play the recording and return the report.

    Raises:
        DemoError: the recording cannot be read, or the stream app found nothing in it.
    """
    batches = list(load(recording))
    if not batches:
        message = f"{recording} holds no events"
        raise DemoError(message)
    screen.step(NOTICE, "bold")
    with Scene(build / "logs") as scene:
        screen.step("starting the embedded broker and the stream app")
        scene.start_embedded_broker()
        scene.prepare()
        scene.start_stream()
        scene.wait_until_stream_is_healthy()
        names = {workload["id"]: workload["id"][:8] for batch in batches for workload in batch["workloads"]}
        names.pop("host/recorded-node", None)
        with Observer(scene.brokers, names) as observer:
            screen.step(f"playing {len(batches)} batches from {recording.name}")
            publish(scene.brokers, batches)
            scene.wait("an alert", lambda: observer.alert(RULE) is not None, ALERT_TIMEOUT_S)
            wait_until_quiet(observer)
            screen.events(observer.take_lines())
            alert = observer.alert(RULE) or {}
            screen.step(
                f"DETECTED  {alert['rule_id']} {alert['severity']}: {alert['description']}", "bold yellow"
            )
            screen.process_tree(alert["lineage"])
            order = first_enforcement(scene.brokers)
            screen.step(
                f"DECIDED   signed enforcement for {order['subject']}, which a sensor would obey",
                "bold green",
            )
            return report_of(observer)


def publish(brokers: str, batches: Iterable[dict[str, Any]]) -> None:
    """Send the batches with their clock moved to now."""
    producer = Producer({"bootstrap.servers": brokers, "partitioner": "murmur2_random", "log_level": 0})
    for batch in batches:
        moved = {**batch, "clock": {**batch["clock"], "wall_ns": time.time_ns()}}
        producer.produce("nsp.events", key=batch["node"].encode(), value=encode("EventBatch", moved))
        producer.poll(0)
    if producer.flush(DELIVERY_TIMEOUT_S):
        message = "the embedded broker did not take the recording"
        raise DemoError(message)


def first_enforcement(brokers: str) -> dict[str, Any]:
    """Return the first decision on nsp.enforcement, its signature not verified here."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "nsp-demo-replay", "log_level": 0})
    try:
        partitions = (
            consumer.list_topics(ENFORCEMENT.name, timeout=READ_TIMEOUT_S).topics[ENFORCEMENT.name].partitions
        )
        consumer.assign([TopicPartition(ENFORCEMENT.name, number, 0) for number in partitions])
        deadline = time.monotonic() + READ_TIMEOUT_S
        while time.monotonic() < deadline:
            message = consumer.poll(0.2)
            value = message.value() if message is not None and message.error() is None else None
            if value is not None:
                signed = decode_as("SignedEnforcement", value)
                return decode_as("Enforcement", signed["payload"])
    finally:
        consumer.close()
    text = "the stream app issued no enforcement for the recorded attack"
    raise DemoError(text)


def report_of(observer: Observer) -> Report:
    """Return the figures a recording can have; those of the kernel are 0."""
    seen = observer.read()
    ledger = LossLedger()
    for batch in seen.batches:
        ledger.add(batch)
    totals = ledger.totals()
    return Report(
        alerts=len(seen.alerts),
        rules=sorted({alert["rule_id"] for alert in seen.alerts.values()}),
        attacks=0,
        attacks_cut=0,
        shells_opened=0,
        time_to_block_ms=0.0,
        decided_after_ms=0.0,
        first_refused_after_ms=0.0,
        service_requests=0,
        service_requests_failed=0,
        attacker_bytes_before_block=0,
        attacker_bytes_after_block=0,
        attacker_beacons_after_block=0,
        profile_reached=0,
        profile_wrongly_refused=0,
        profile_refused=[],
        events_produced=totals.produced,
        events_seen=totals.seen,
        events_counted_lost=totals.lost,
        events_unaccounted=totals.unaccounted,
        recorded=True,
    )
