# SPDX-License-Identifier: Apache-2.0
"""One stream app process from start to stop.

Start: wait for Kafka, check the topics, load the pods, then let Faust join the group. Stop (SIGTERM, SIGINT):
finish the message in hand, deliver outputs, commit, leave the group, exit 0. Failure: whatever must not be
committed over ends the process with a :class:`StreamError`; started again, it goes on from the committed
offset, and the ids of what it says twice are the same.
"""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from schemas.codec import decode_as
from schemas.errors import SchemaError
from schemas.topics import ENFORCEMENT, ENFORCEMENT_STATUS, PODS
from stream_apps.streaming.app import build_app
from stream_apps.streaming.errors import OutputLostError, StoppedError, StreamError
from stream_apps.streaming.metrics import Metrics, MetricsServer
from stream_apps.streaming.outputs import STOP_PATIENCE_S, Outputs
from stream_apps.streaming.read_back import ReadBack
from stream_apps.streaming.side_topics import SideTopics
from stream_apps.streaming.worker import Decider, Worker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from schemas.signing import SigningKey
    from stream_apps.streaming.app import StreamApp
    from stream_apps.streaming.connection import KafkaConnection
    from stream_apps.streaming.message import Message

_log = structlog.get_logger(__name__)

_TICK_S: Final = 0.1
# A loop that has not ticked for so long is stuck: no batch takes a second.
STUCK_S: Final = 15.0
# Outputs get their patience, the group a few seconds to hear that we leave.
_STOP_TIMEOUT_S: Final = STOP_PATIENCE_S + 10.0
_NS_PER_S: Final = 1_000_000_000


class PodSink(Protocol):
    """The table of pods."""

    def put(self, pod: Mapping[str, Any]) -> None:
        """Take a ``Pod`` record, new or changed."""

    def remove(self, uid: str) -> None:
        """Forget a pod; unknown ones too."""

    def __len__(self) -> int:
        """How many are known."""


class Pipeline(Decider, Protocol):
    """What decides, and hears what became of it."""

    def on_status(self, status: Mapping[str, Any]) -> None:
        """Take an ``EnforcementStatus`` record."""


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """What the process is told.

    Attributes:
        connection: Where Kafka is.
        group: Consumer group.
        instance: Name for static membership, or None (see :func:`build_app`).
        signing_key: What enforcement is signed with.
        metrics_address: Address and port of ``/metrics`` and ``/healthz``, or None.
        window_s: How far back detectors remember.
    """

    connection: KafkaConnection
    group: str
    instance: str | None
    signing_key: SigningKey
    metrics_address: tuple[str, int] | None
    window_s: float


class Runtime:
    """Puts the parts together; is what Faust's driver calls back."""

    def __init__(self, settings: RuntimeSettings, pipeline: Pipeline, pods: PodSink) -> None:
        self._settings = settings
        self._pipeline = pipeline
        self._pods = pods
        self._metrics = Metrics()
        self._side = SideTopics(settings.connection)
        self._outputs = Outputs(settings.connection, self._metrics)
        self._read_back = ReadBack(settings.connection, settings.group, settings.window_s)
        self._worker: Worker | None = None
        self._stopping = asyncio.Event()
        self._failed = asyncio.Event()
        self._phase: str | None = "waiting for Kafka"
        self._ticked = time.monotonic()

    def problem(self) -> str | None:
        """What is wrong now, None when events are processed. Called from any thread."""
        if self._outputs.failure:
            return self._outputs.failure
        stuck_s = time.monotonic() - self._ticked
        if stuck_s > STUCK_S:
            return f"the event loop has been stuck for {stuck_s:.0f} s"
        return self._phase

    async def run(self) -> None:
        """Run until a signal or a failure.

        Raises:
            StreamError: Why it could not go on.
        """
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, self._stop)
        server = None
        if self._settings.metrics_address:
            server = MetricsServer(*self._settings.metrics_address, self._metrics, self.problem)
            server.start()
            _log.info("serving metrics and health", port=server.port)
        ticking = asyncio.create_task(self._tick())
        try:
            await self._process()
        except StoppedError:
            if not self._stopping.is_set() or self._outputs.waiting:
                raise
        finally:
            ticking.cancel()
            await loop.run_in_executor(None, self._side.stop)
            if server:
                await loop.run_in_executor(None, server.stop)

    async def deliver_outputs(self) -> None:
        """See :class:`stream_apps.streaming.driver.Hooks`."""
        await self._outputs.deliver()

    async def before_partitions(self, partitions: frozenset[int]) -> None:
        """See :class:`stream_apps.streaming.driver.Hooks`."""
        loop = asyncio.get_running_loop()
        chunks = self._read_back.chunks(partitions)
        count = 0
        while (chunk := await loop.run_in_executor(None, next, chunks, None)) is not None:
            for message in chunk:
                if self._worker:
                    self._worker.remember(message)
            count += len(chunk)
            if self._stopping.is_set():
                break
        _log.info("partitions taken over", partitions=sorted(partitions), batches_read_back=count)
        self._phase = None

    async def _process(self) -> None:
        loop = asyncio.get_running_loop()
        partitions = await loop.run_in_executor(None, self._side.topics)
        self._phase = "loading pods"
        spoilt: list[tuple[Message, SchemaError]] = []
        await loop.run_in_executor(None, self._side.load, partitions, lambda each: self._load(each, spoilt))
        self._metrics.pods.set(len(self._pods))
        _log.info("pods loaded", pods=len(self._pods))
        self._worker = Worker(
            self._pipeline,
            self._outputs,
            self._settings.signing_key,
            partitions[ENFORCEMENT.name],
            self._metrics,
        )
        for message, error in spoilt:
            await self._worker.bury(message, "decode", error)
        self._side.start(
            lambda messages: asyncio.run_coroutine_threadsafe(self._take_side(messages), loop).result()
        )
        self._phase = "joining the consumer group"
        await self._run_app(self._worker)

    async def _run_app(self, worker: Worker) -> None:
        settings = self._settings
        app = build_app(settings.connection, settings.group, settings.instance, self, worker.handle)
        waits = [
            asyncio.create_task(self._stopping.wait()),
            asyncio.create_task(self._ended(app)),
            asyncio.create_task(self._failed.wait()),
        ]
        try:
            await app.start()
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
            self._outputs.stop_soon()
        reason = app.crash_reason
        self._phase = "stopping"
        if reason is None and waits[2] not in done:
            await asyncio.wait_for(app.stop(), _STOP_TIMEOUT_S)
            await self._outputs.deliver()
            _log.info("stopped: outputs delivered, offsets committed")
            return
        # Nothing more is committed: what was read since the last commit is read again.
        if self._outputs.failure:
            raise OutputLostError(self._outputs.failure) from reason
        if isinstance(reason, StreamError):
            raise reason
        raise StreamError(f"the stream app crashed: {type(reason).__name__}: {reason}") from reason

    async def _ended(self, app: StreamApp) -> None:
        await app.wait_until_stopped()

    def _load(self, message: Message, spoilt: list[tuple[Message, SchemaError]]) -> None:
        try:
            self._take_pod(message)
        except SchemaError as error:
            spoilt.append((message, error))

    def _take_pod(self, message: Message) -> None:
        if message.topic != PODS.name:
            return
        if message.key is None:
            raise SchemaError("a pod without a key")
        if message.value is None:
            self._pods.remove(message.key.decode(errors="replace"))
        else:
            self._pods.put(decode_as(PODS.value, message.value))

    async def _take_side(self, messages: list[Message]) -> None:
        for message in messages:
            try:
                self._take_pod(message)
                if message.topic == ENFORCEMENT_STATUS.name and message.value is not None:
                    self._take_status(decode_as(ENFORCEMENT_STATUS.value, message.value))
            except Exception as error:  # noqa: BLE001 - a message that cannot be used stops nothing
                if self._worker:
                    await self._worker.bury(message, "decode", error)
        self._metrics.pods.set(len(self._pods))

    def _take_status(self, status: Mapping[str, Any]) -> None:
        self._metrics.statuses.labels(status["outcome"]).inc()
        if status["outcome"] == "APPLIED" and status["evidence_boot_ns"]:
            took_ns = status["applied_boot_ns"] - status["evidence_boot_ns"]
            self._metrics.time_to_block_seconds.observe(took_ns / _NS_PER_S)
            _log.info("enforcement applied", subject=status["subject"], took_ms=took_ns / 1e6)
        self._pipeline.on_status(status)

    def _stop(self) -> None:
        self._stopping.set()
        self._side.interrupt()

    async def _tick(self) -> None:
        with suppress(asyncio.CancelledError):
            while True:
                self._outputs.poll()
                if self._outputs.failure:
                    self._failed.set()
                self._metrics.output_queue.set(self._outputs.waiting)
                self._ticked = time.monotonic()
                await asyncio.sleep(_TICK_S)
