# SPDX-License-Identifier: Apache-2.0
"""What happens to one message of ``nsp.events``.

Decode, ask the pipeline, hand enforcement over first and alerts after it. A message that cannot be used
becomes a dead letter with the place and the reason, is counted, and the next one is taken: no message stops
the app. An error of the output side is not the message's fault and is raised.
"""

from __future__ import annotations

import time
import traceback
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from schemas.codec import decode_as, encode
from schemas.errors import SchemaError
from schemas.partition import partition_for
from schemas.subject import enforcement_key
from schemas.topics import (
    ALERTS,
    DEAD_LETTER,
    DEAD_LETTER_KEY_MAX_BYTES,
    DEAD_LETTER_VALUE_MAX_BYTES,
    ENFORCEMENT,
    EVENTS,
    OBSERVATIONS,
    RESPONSES,
)

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from schemas.signing import SigningKey
    from stream_apps.streaming.message import Message
    from stream_apps.streaming.metrics import Metrics

_log = structlog.get_logger(__name__)

# Of the text of the errors, which may quote hostile input at length.
REASON_MAX_CHARACTERS: Final = 4000
_NS_PER_S: Final = 1_000_000_000


class Unusable(Protocol):
    """A part of a batch that could not be used."""

    @property
    def stage(self) -> str:
        """correlate, detect or respond."""

    @property
    def place(self) -> str:
        """Where in the batch."""

    @property
    def reason(self) -> str:
        """Why."""


class Decided(Protocol):
    """What a pipeline makes of a batch."""

    @property
    def alerts(self) -> Sequence[Mapping[str, Any]]:
        """``Alert`` records."""

    @property
    def errors(self) -> Sequence[Unusable]:
        """Parts of the batch that could not be used."""

    @property
    def enforcements(self) -> Sequence[Mapping[str, Any]]:
        """``Enforcement`` records, not signed yet."""

    @property
    def waiting(self) -> Sequence[Mapping[str, Any]]:
        """``PendingResponse`` records, not signed yet."""

    @property
    def audits(self) -> Sequence[Mapping[str, Any]]:
        """``Alert`` records that say what became of responses."""


class Learning(Protocol):
    """What was learned and is to be published."""

    @property
    def counts(self) -> Counter[str]:
        """Counters by reason."""

    def due(self, now_ns: int, *, everything: bool = False) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
        """Records with their keys; None withdraws one."""


class Decider(Protocol):
    """The pure part: correlate, detect, respond."""

    @property
    def learner(self) -> Learning | None:
        """Who learns, if anybody does."""

    def tick(self, now_ns: int) -> Decided:
        """Let time pass."""

    def process(
        self, batch: dict[str, Any], now_ns: int, *, replaying: bool = False, again: bool = False
    ) -> Decided:
        """Take a batch; with ``replaying`` only remember it, with ``again`` judge it though it is old."""


class Sender(Protocol):
    """Where outputs go."""

    async def send(self, topic: str, key: bytes, value: bytes | None, partition: int = -1) -> None:
        """Hand one over; waits, never drops."""


class Worker:
    """Handles messages, one at a time."""

    def __init__(
        self,
        pipeline: Decider,
        outputs: Sender,
        signing_key: SigningKey,
        enforcement_partitions: int,
        metrics: Metrics,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Wire it.

        Args:
            pipeline: What decides.
            outputs: Where alerts, enforcement and dead letters go.
            signing_key: What enforcement is signed with.
            enforcement_partitions: Partitions of ``nsp.enforcement``.
            metrics: Figures.
            now_ns: Wall clock.
        """
        self._pipeline = pipeline
        self._outputs = outputs
        self._signing_key = signing_key
        self._enforcement_partitions = enforcement_partitions
        self._metrics = metrics
        self._now_ns = now_ns

    async def handle(self, message: Message) -> None:
        """Process one message; on return its outputs are handed over.

        Raises:
            StreamError: An output is refused for good.
        """
        began = time.perf_counter()
        batch = await self._decoded(message)
        if batch is None:
            return
        try:
            decided = self._pipeline.process(batch, self._now_ns(), again=message.retries > 0)
        except Exception as error:  # noqa: BLE001 - whatever a batch triggers, the next one is processed
            await self.bury(message, getattr(error, "stage", "detect"), _reason(error))
            return
        self._measure(batch, time.perf_counter() - began)
        problems = await self._publish(decided)
        problems += [f"{each.stage}, {each.place}: {each.reason}" for each in decided.errors]
        if problems:
            stage = decided.errors[0].stage if decided.errors else "respond"
            await self.bury(message, stage, "\n".join(problems))
        self._metrics.messages.labels(message.topic, "partly" if problems else "processed").inc()

    async def tick(self) -> None:
        """Let time pass, and publish what comes of it.

        Raises:
            StreamError: An output is refused for good.
        """
        for problem in await self._publish(self._pipeline.tick(self._now_ns())):
            _log.error("an output of the clock cannot be written", reason=problem)

    async def publish_learned(self, *, everything: bool = False) -> None:
        """Publish what was learned and is due, or everything.

        Raises:
            StreamError: An output is refused for good.
        """
        learner = self._pipeline.learner
        if learner is None:
            return
        # A copy: while a full queue makes this wait, the next batch may be learned.
        for key, record in list(learner.due(self._now_ns(), everything=everything)):
            try:
                value = None if record is None else encode(OBSERVATIONS.value, record)
            except SchemaError as error:
                learner.counts["unwritable"] += 1
                _log.error("what was learned cannot be written", key=key.decode(), reason=str(error))
                continue
            await self._outputs.send(OBSERVATIONS.name, key, value)

    def remember(self, message: Message) -> None:
        """Let the pipeline see a batch again that was decided before a restart; nothing comes of it.

        What cannot be used now could not be used then, and is in the dead letters already.
        """
        try:
            batch = decode_as(EVENTS.value, message.value or b"")
            self._pipeline.process(batch, self._now_ns(), replaying=True)
        except Exception as error:  # noqa: BLE001 - as in handle
            _log.info("message passed over while reading back", place=message.place, reason=_reason(error))
            return
        self._metrics.replayed.inc()

    async def bury(self, message: Message, stage: str, reason: str) -> None:
        """Count a message that cannot be used, or not all of it, and keep it with the reason."""
        reason = reason[:REASON_MAX_CHARACTERS]
        _log.warning("message cannot be used", place=message.place, stage=stage, reason=reason)
        self._metrics.dead_letters.labels(message.topic, stage).inc()
        letter = {
            "topic": message.topic,
            "partition": message.partition,
            "offset": message.offset,
            "key": message.key and message.key[:DEAD_LETTER_KEY_MAX_BYTES],
            "value": message.value and message.value[:DEAD_LETTER_VALUE_MAX_BYTES],
            "stage": stage,
            "reason": reason,
            "failed_at_ns": self._now_ns(),
            "value_bytes": -1 if message.value is None else len(message.value),
            "headers": [{"key": key, "value": value} for key, value in message.headers],
        }
        await self._outputs.send(DEAD_LETTER.name, message.topic.encode(), encode(DEAD_LETTER.value, letter))

    async def _decoded(self, message: Message) -> dict[str, Any] | None:
        try:
            if message.value is None:
                raise SchemaError("an empty message")  # noqa: TRY301 - one place buries what is not a batch
            return decode_as(EVENTS.value, message.value)
        except SchemaError as error:
            await self.bury(message, "decode", _reason(error))
            return None

    async def _publish(self, decided: Decided) -> list[str]:
        """Orders first, then what waits, then what people read; what is wrong with what cannot be written."""
        problems = [each for order in decided.enforcements if (each := await self._enforce(order))]
        problems += [each for record in decided.waiting if (each := await self._wait(record))]
        alerts = (*decided.alerts, *decided.audits)
        return problems + [each for alert in alerts if (each := await self._alert(alert))]

    async def _wait(self, waiting: Mapping[str, Any]) -> str | None:
        """Publish one response that waits, or does no more; what is wrong with it, if it cannot be."""
        try:
            value = self._signing_key.sign(encode("PendingResponse", waiting))
        except (SchemaError, KeyError) as error:
            return f"respond: {_reason(error)}"
        await self._outputs.send(RESPONSES.name, waiting["id"].encode(), value)
        _log.info("response waits", id=waiting["id"], subject=waiting["subject"], state=waiting["state"])
        return None

    async def _enforce(self, enforcement: Mapping[str, Any]) -> str | None:
        """Publish one order; what is wrong with it, if it cannot be."""
        try:
            node = enforcement["node"]
            key = enforcement_key(node, enforcement["subject"])
            value = self._signing_key.sign(encode("Enforcement", enforcement))
        except (SchemaError, KeyError) as error:
            return f"respond: {_reason(error)}"
        partition = partition_for(node.encode(), self._enforcement_partitions)
        await self._outputs.send(ENFORCEMENT.name, key, value, partition)
        self._metrics.enforcements.inc()
        _log.info(
            "enforcement issued",
            node=node,
            subject=enforcement["subject"],
            generation=enforcement["generation"],
            alert_id=enforcement["alert_id"],
        )
        return None

    async def _alert(self, alert: Mapping[str, Any]) -> str | None:
        """Publish one alert; what is wrong with it, if it cannot be."""
        try:
            value = encode(ALERTS.value, alert)
            key = alert["workload"]["id"].encode()
            response = alert["response"]
        except (SchemaError, KeyError, TypeError) as error:
            return f"respond: {_reason(error)}"
        await self._outputs.send(ALERTS.name, key, value)
        self._metrics.alerts.labels(alert["rule_id"], response["action"], response["decision"]).inc()
        _log.info("alert", alert_id=alert["id"], rule=alert["rule_id"], decision=response["decision"])
        return None

    def _measure(self, batch: Mapping[str, Any], took_s: float) -> None:
        self._metrics.process_seconds.observe(took_s)
        self._metrics.events.inc(len(batch["events"]))
        age_ns = self._now_ns() - batch["clock"]["wall_ns"]
        self._metrics.batch_age_seconds.observe(max(age_ns, 0) / _NS_PER_S)


def _reason(error: Exception) -> str:
    """The error in words, with the innermost place it came from."""
    text = f"{type(error).__name__}: {error}"
    if not isinstance(error, SchemaError):
        frames = traceback.extract_tb(error.__traceback__)
        if frames:
            last = frames[-1]
            text += f" (at {last.filename.rpartition('/')[2]}:{last.lineno} in {last.name})"
    return text
