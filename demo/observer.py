# SPDX-License-Identifier: Apache-2.0
"""What a consumer of the topics sees: the demonstration believes only what Kafka says.

Reads ``nsp.events``, ``nsp.alerts`` and ``nsp.enforcement-status`` from the beginning in a thread,
keeps what the screen and the report need, and every batch for the recording. Offsets are not
committed: each run reads everything.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from confluent_kafka import Consumer, TopicPartition

from demo.errors import DemoError
from demo.lines import describe_event
from schemas.codec import decode_as
from schemas.errors import CodecError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confluent_kafka import Message

LINES_KEPT = 500  # the screen shows the last dozen; a stalled screen must not grow without bound
POLL_S = 0.05
METADATA_TIMEOUT_S = 10


@dataclass(slots=True)
class Seen:
    """Everything read so far; written by the observer's thread only."""

    batches: list[dict[str, Any]] = field(default_factory=list)
    alerts: dict[str, dict[str, Any]] = field(default_factory=dict)
    statuses: list[dict[str, Any]] = field(default_factory=list)
    listening: set[str] = field(default_factory=set)
    events: int = 0
    refusals: int = 0
    unreadable: int = 0


class Observer:
    """A thread that reads the topics; use as a context manager."""

    def __init__(self, brokers: str, workload_names: Mapping[str, str]) -> None:
        """Remember the broker and how to call each workload (id -> name on the screen)."""
        self._brokers = brokers
        self._names = workload_names
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._seen = Seen()
        self._failure: Exception | None = None

    def __enter__(self) -> Self:
        """Start reading."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop reading."""
        self._stop.set()
        self._thread.join()

    def read(self) -> Seen:
        """Return the state so far.

        Raises:
            DemoError: the thread died; the cause is chained.
        """
        if self._failure is not None:
            message = f"the observer stopped: {self._failure}"
            raise DemoError(message) from self._failure
        return self._seen

    def take_lines(self) -> list[str]:
        """Return the event lines not yet shown."""
        lines = []
        while self._lines:
            lines.append(self._lines.popleft())
        return lines

    def status(self, outcome: str, subject: str | None = None) -> dict[str, Any] | None:
        """Return the first enforcement status with this outcome, of one subject or of any, or None."""
        return next(
            (
                status
                for status in self.read().statuses
                if status["outcome"] == outcome and subject in {None, status["subject"]}
            ),
            None,
        )

    def listens(self, workload_id: str) -> bool:
        """Return whether a process of this workload has been seen to listen."""
        return workload_id in self._seen.listening

    def alert(self, rule_id: str) -> dict[str, Any] | None:
        """Return the first alert of a rule, or None."""
        return next(iter(self.alerts(rule_id)), None)

    def alerts(self, rule_id: str) -> list[dict[str, Any]]:
        """Return the alerts of a rule, in the order they came."""
        return [alert for alert in list(self.read().alerts.values()) if alert["rule_id"] == rule_id]

    def _run(self) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self._brokers,
                "group.id": "nsp-demo-observer",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 20,
                "log_level": 0,
            }
        )
        try:
            consumer.assign(self._partitions(consumer))
            while not self._stop.is_set():
                for message in consumer.consume(100, POLL_S):
                    if message.error() is None:
                        self._take_or_count(message)
        except Exception as error:  # noqa: BLE001 - handed to the main thread by read()
            self._failure = error
        finally:
            consumer.close()

    def _partitions(self, consumer: Consumer) -> list[TopicPartition]:
        topics = consumer.list_topics(timeout=METADATA_TIMEOUT_S).topics
        return [
            TopicPartition(topic, number, 0)
            for topic in ("nsp.events", "nsp.alerts", "nsp.enforcement-status")
            for number in topics[topic].partitions
        ]

    def _take_or_count(self, message: Message) -> None:
        try:
            self._take(message)
        except CodecError:
            self._seen.unreadable += 1  # anybody may write anything to a topic

    def _take(self, message: Message) -> None:
        value = message.value()
        if value is None:
            return
        match message.topic():
            case "nsp.events":
                self._take_batch(decode_as("EventBatch", value))
            case "nsp.alerts":
                alert = decode_as("Alert", value)
                if alert["audit"] is None:
                    self._seen.alerts.setdefault(alert["id"], alert)
            case _:
                self._seen.statuses.append(decode_as("EnforcementStatus", value))

    def _take_batch(self, batch: dict[str, Any]) -> None:
        seen = self._seen
        seen.batches.append(batch)
        for record_name, event in batch["events"]:
            kind = record_name.rpartition(".")[2]
            seen.events += 1
            seen.refusals += kind == "Refusal"
            if kind == "SocketListen":
                process = batch["processes"][event["process"]]
                seen.listening.add(batch["workloads"][process["workload"]]["id"])
            line = describe_event(batch, kind, event, self._names)
            if line is not None:
                self._lines.append(line)
