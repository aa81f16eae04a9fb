# SPDX-License-Identifier: Apache-2.0
"""What the side topics tell: pods, profiles, rules, what was learned, what is in force and what came of it.

Enforcement and what waits count only with our own signature: whoever could write to the topic could
otherwise make the app believe that a person has spoken, or a node told. A message that cannot be used is
counted and logged and stays where it is, on its compacted topic; only a profile or a rule is returned, for a
person waits for it: the one in force before it stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from schemas.codec import decode, decode_as
from schemas.errors import SchemaError
from schemas.topics import ENFORCEMENT, ENFORCEMENT_STATUS, OBSERVATIONS, PODS, PROFILES, RESPONSES, RULES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from schemas.signing import VerifyingKeys
    from stream_apps.correlate.pods import PodTable
    from stream_apps.pipeline import Pipeline
    from stream_apps.profiles.desk import ProfileDesk
    from stream_apps.streaming.message import Message
    from stream_apps.streaming.metrics import Metrics

# What desks of stream apps tell nodes; the rest of the topic is the pipeline's.
PROFILE_RECORDS: Final = frozenset({"ProfileOrder", "NodeWorkloads"})
# What a person waits for: told again as a dead letter when it cannot be used.
_AWAITED: Final = frozenset({PROFILES.name, RULES.name})
_log = structlog.get_logger(__name__)
_NS_PER_S: Final = 1_000_000_000
_NS_PER_MS: Final = 1_000_000


class SideInput:
    """Takes messages of the side topics; used by one thread at a time."""

    def __init__(
        self,
        pipeline: Pipeline,
        pods: PodTable,
        desk: ProfileDesk,
        trusted: VerifyingKeys,
        metrics: Metrics,
    ) -> None:
        self._pipeline = pipeline
        self._pods = pods
        self._desk = desk
        self._trusted = trusted
        self._metrics = metrics

    def take(self, messages: Iterable[Message]) -> list[tuple[Message, str]]:
        """Take messages in order; none of them stops anything.

        Returns:
            The profiles and rules that cannot be used, and why.
        """
        refused = []
        for message in messages:
            try:
                self._take(message)
            except Exception as error:  # noqa: BLE001 - whatever a message triggers, the next one is taken
                self._metrics.messages.labels(message.topic, "unusable").inc()
                reason = f"{type(error).__name__}: {error}"
                _log.warning("message cannot be used", place=message.place, reason=reason)
                if message.topic in _AWAITED:
                    refused.append((message, reason))
            else:
                self._metrics.messages.labels(message.topic, "taken").inc()
        return refused

    def settle(self) -> None:
        """Put the rules that were taken in force: once for many, because all are put together anew."""
        rules = self._pipeline.rules
        try:
            changed = rules.settle()
        except Exception as error:  # noqa: BLE001 - the rules before stay; nothing else is held up
            self._metrics.messages.labels(RULES.name, "unusable").inc()
            _log.warning("rules cannot be put in force", reason=f"{type(error).__name__}: {error}")
            return
        if changed:
            _log.info("rules in force", version=rules.version, rules=len(rules.rules))

    def _take(self, message: Message) -> None:
        if message.key is None:
            raise SchemaError("a message without a key")
        if message.topic == PODS.name:
            self._take_pod(message.key, message.value, message.timestamp_ns)
        elif message.topic == PROFILES.name:
            self._take_profile(message.key.decode(errors="replace"), message.value, message.timestamp_ns)
        elif message.topic == RULES.name:
            self._take_rule(message.key.decode(errors="replace"), message.value)
        elif message.topic == OBSERVATIONS.name:
            self._take_observations(message.key, message.value, message.timestamp_ns)
        elif message.value is None:
            return  # a subject nobody has a word on any more
        elif message.topic == ENFORCEMENT.name:
            self._take_order(self._trusted.verify(message.value))
        elif message.topic == RESPONSES.name:
            payload = self._trusted.verify(message.value)
            self._pipeline.on_waiting(decode_as("PendingResponse", payload))
        elif message.topic == ENFORCEMENT_STATUS.name:
            self._take_status(message.value)

    def _take_pod(self, key: bytes, value: bytes | None, changed_ns: int) -> None:
        uid = key.decode(errors="replace")
        if value is None:
            self._pods.remove(uid)
        else:
            record = decode_as(PODS.value, value)
            uid = record["uid"]
            self._pods.put(record)
        self._desk.pod(uid, self._pods.by_uid(uid), changed_ns)

    def _take_profile(self, key: str, value: bytes | None, changed_ns: int) -> None:
        if value is None:
            self._desk.profile_gone(key, changed_ns)
        else:
            self._desk.profile(key, decode_as(PROFILES.value, value), len(value), changed_ns)

    def _take_rule(self, key: str, value: bytes | None) -> None:
        rules = self._pipeline.rules
        if value is None:
            rules.withdraw(key)
            return
        record = decode_as(RULES.value, value)
        if record["id"] != key:
            raise SchemaError(f"the rule {record['id']} under another key")
        rules.publish(key, record["text"].encode())

    def _take_observations(self, key: bytes, value: bytes | None, changed_ns: int) -> None:
        if self._pipeline.learner is not None:
            record = None if value is None else decode_as(OBSERVATIONS.value, value)
            self._pipeline.learner.read_back(key, record, changed_ns)

    def _take_order(self, payload: bytes) -> None:
        name, record = decode(payload)
        if name in PROFILE_RECORDS:
            self._desk.order_read(name, record)
        else:
            self._pipeline.on_enforcement(decode_as("Enforcement", payload))

    def _take_status(self, value: bytes) -> None:
        status = decode_as(ENFORCEMENT_STATUS.value, value)
        self._desk.node(status["node"])
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
