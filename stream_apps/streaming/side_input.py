# SPDX-License-Identifier: Apache-2.0
"""What the side topics tell the pipeline: pods, what is in force, and what became of it.

Enforcement counts only with our own signature: whoever could write to the topic could otherwise make the
app believe that a person has spoken. A message that cannot be used is counted and logged and stays where it
is, on its compacted topic; it is no dead letter, since every process reads it at every start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from schemas.codec import decode_as
from schemas.errors import SchemaError
from schemas.topics import ENFORCEMENT, ENFORCEMENT_STATUS, PODS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from schemas.signing import VerifyingKeys
    from stream_apps.correlate.pods import PodTable
    from stream_apps.pipeline import Pipeline
    from stream_apps.streaming.message import Message
    from stream_apps.streaming.metrics import Metrics

_log = structlog.get_logger(__name__)
_NS_PER_S: Final = 1_000_000_000
_NS_PER_MS: Final = 1_000_000


class SideInput:
    """Takes messages of the side topics; used by one thread at a time."""

    def __init__(self, pipeline: Pipeline, pods: PodTable, trusted: VerifyingKeys, metrics: Metrics) -> None:
        self._pipeline = pipeline
        self._pods = pods
        self._trusted = trusted
        self._metrics = metrics

    def take(self, messages: Iterable[Message]) -> None:
        """Take messages in order; none of them stops anything."""
        for message in messages:
            try:
                self._take(message)
            except Exception as error:  # noqa: BLE001 - whatever a message triggers, the next one is taken
                self._metrics.messages.labels(message.topic, "unusable").inc()
                reason = f"{type(error).__name__}: {error}"
                _log.warning("message cannot be used", place=message.place, reason=reason)
            else:
                self._metrics.messages.labels(message.topic, "taken").inc()

    def _take(self, message: Message) -> None:
        if message.key is None:
            raise SchemaError("a message without a key")
        if message.topic == PODS.name:
            self._take_pod(message.key, message.value)
        elif message.value is None:
            return  # a subject nobody has a word on any more
        elif message.topic == ENFORCEMENT.name:
            payload = self._trusted.verify(message.value)
            self._pipeline.on_enforcement(decode_as("Enforcement", payload))
        elif message.topic == ENFORCEMENT_STATUS.name:
            self._take_status(message.value)

    def _take_pod(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self._pods.remove(key.decode(errors="replace"))
        else:
            self._pods.put(decode_as(PODS.value, value))

    def _take_status(self, value: bytes) -> None:
        status = decode_as(ENFORCEMENT_STATUS.value, value)
        self._metrics.statuses.labels(status["outcome"]).inc()
        times = self._pipeline.on_status(status)
        if times is None or status["outcome"] != "APPLIED":
            return
        self._metrics.time_to_block_seconds.observe(times.time_to_block_ns / _NS_PER_S)
        _log.info(
            "enforcement applied",
            node=times.node,
            subject=times.subject,
            alert_id=times.alert_id,
            decided_ms=(times.decided_boot_ns - times.evidence_boot_ns) / _NS_PER_MS,
            applied_ms=times.time_to_block_ns / _NS_PER_MS,
        )
