# SPDX-License-Identifier: Apache-2.0
"""One stream app process from start to stop.

Start: wait for Kafka, check the topics, load pods, what was learned and enforcement in force, then let Faust
join the group.
Stop (SIGTERM, SIGINT): finish the message in hand, deliver outputs, commit, leave the group. Failure:
whatever must not be committed over ends the process with a :class:`StreamError`; started again, it goes on
from the committed offset, and what it says twice has the same ids.
"""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from schemas.partition import partition_for
from schemas.signing import VerifyingKeys
from schemas.topics import ENFORCEMENT, EVENTS, OBSERVATIONS
from stream_apps.assembly import read_back_s
from stream_apps.streaming.app import build_app
from stream_apps.streaming.config_reload import ConfigReload
from stream_apps.streaming.errors import OutputLostError, StoppedError, StreamError
from stream_apps.streaming.metrics import Metrics, MetricsServer
from stream_apps.streaming.outputs import STOP_PATIENCE_S, Outputs
from stream_apps.streaming.profile_orders import ProfilePublisher
from stream_apps.streaming.read_back import ReadBack
from stream_apps.streaming.side_input import SideInput
from stream_apps.streaming.side_topics import SideTopics
from stream_apps.streaming.worker import Worker

if TYPE_CHECKING:
    from pathlib import Path

    from schemas.signing import SigningKey
    from stream_apps.config.file import Loaded
    from stream_apps.correlate.pods import PodTable
    from stream_apps.pipeline import Pipeline
    from stream_apps.profiles.desk import ProfileDesk
    from stream_apps.streaming.app import StreamApp
    from stream_apps.streaming.connection import KafkaConnection
    from stream_apps.streaming.message import Message

_log = structlog.get_logger(__name__)

# Delivery reports are served and failures seen so often.
_BEAT_S: Final = 0.1
# Time passes for the pipeline, and its figures are copied, every so many beats.
_BEATS_PER_TICK: Final = 10
# A loop that has not beaten for so long is stuck: no batch takes a second.
STUCK_S: Final = 15.0
# Outputs get their patience, the group a few seconds to hear that we leave: within the 30 s that Kubernetes
# grants.
_STOP_TIMEOUT_S: Final = STOP_PATIENCE_S + 5.0


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """What the process is told.

    Attributes:
        connection: Where Kafka is.
        group: Consumer group.
        instance: Name for static membership, or None (see :func:`build_app`).
        signing_key: What enforcement is signed with.
        metrics_address: Address and port of ``/metrics`` and ``/healthz``, or None.
        config_file: The configuration's file, which is watched.
        loaded: What it says.
    """

    connection: KafkaConnection
    group: str
    instance: str | None
    signing_key: SigningKey
    metrics_address: tuple[str, int] | None
    config_file: Path
    loaded: Loaded


class Runtime:
    """Puts the parts together; is what Faust's driver calls back. Made and run on one event loop."""

    def __init__(
        self, settings: RuntimeSettings, pipeline: Pipeline, pods: PodTable, desk: ProfileDesk
    ) -> None:
        self._settings = settings
        self._pipeline = pipeline
        self._desk = desk
        self._metrics = Metrics()
        self._side = SideTopics(settings.connection)
        trusted = VerifyingKeys.from_pems([settings.signing_key.public_pem()])
        self._side_input = SideInput(pipeline, pods, desk, trusted, self._metrics)
        self._outputs = Outputs(settings.connection, self._metrics)
        self._read_back = ReadBack(settings.connection, settings.group, self._window_s(settings.loaded))
        self._reload = ConfigReload(
            settings.config_file, settings.loaded, pipeline, self._metrics, self._config_taken
        )
        self._worker: Worker | None = None
        self._publisher: ProfilePublisher | None = None
        self._events_partitions = 0
        self._stopping = asyncio.Event()
        self._failed = asyncio.Event()
        self._phase: str | None = "waiting for Kafka"
        self._beaten = time.monotonic()

    def problem(self) -> str | None:
        """What is wrong now, None when events are processed. Called from any thread."""
        if self._outputs.failure:
            return self._outputs.failure
        stuck_s = time.monotonic() - self._beaten
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
        loop.add_signal_handler(signal.SIGHUP, self._reload.ask)
        server = None
        if self._settings.metrics_address:
            server = MetricsServer(*self._settings.metrics_address, self._metrics, self.problem)
            server.start()
        beating = asyncio.create_task(self._beat())
        try:
            await self._process()
        except StoppedError:
            if self._outputs.waiting:
                raise
        finally:
            beating.cancel()
            await loop.run_in_executor(None, self._side.stop)
            if server:
                await loop.run_in_executor(None, server.stop)

    async def deliver_outputs(self) -> None:
        """See :class:`stream_apps.streaming.driver.Hooks`.

        What was learned of the events goes out before their offset is committed, as alerts do.
        """
        if self._worker:
            await self._worker.publish_learned(everything=self._stopping.is_set())
        await self._outputs.deliver()

    async def before_partitions(self, partitions: frozenset[int]) -> None:
        """See :class:`stream_apps.streaming.driver.Hooks`."""
        loop = asyncio.get_running_loop()
        if self._pipeline.learner is not None:
            await loop.run_in_executor(None, self._side.catch_up, OBSERVATIONS.name)
        chunks = self._read_back.chunks(partitions)
        count = 0
        while self._worker and not self._stopping.is_set():
            chunk = await loop.run_in_executor(None, next, chunks, None)
            if chunk is None:
                break
            for message in chunk:
                self._worker.remember(message)
            count += len(chunk)
        _log.info("partitions taken over", partitions=sorted(partitions), batches_read_back=count)
        self._phase = None

    async def partitions_held(self, partitions: frozenset[int]) -> None:
        """See :class:`stream_apps.streaming.driver.Hooks`."""
        count = self._events_partitions

        def is_ours(node: str) -> bool:
            return partition_for(node.encode(), count) in partitions

        self._desk.takes(is_ours)
        self._pipeline.takes(is_ours)
        if self._pipeline.learner is not None:
            self._pipeline.learner.takes(is_ours)
        if self._publisher:
            orders = await self._publisher.publish()
            _log.info("nodes of our partitions are told", partitions=sorted(partitions), orders=orders)

    async def _process(self) -> None:
        loop = asyncio.get_running_loop()
        partitions = await loop.run_in_executor(None, self._side.topics)
        self._phase = "loading pods, profiles, rules and enforcement"
        count = await loop.run_in_executor(None, self._side.load, partitions, self._side_input.take)
        self._side_input.settle()
        _log.info("side topics loaded", messages=count)
        self._worker = Worker(
            self._pipeline,
            self._outputs,
            self._settings.signing_key,
            partitions[ENFORCEMENT.name],
            self._metrics,
        )
        self._events_partitions = partitions[EVENTS.name]
        self._publisher = ProfilePublisher(
            self._desk,
            self._outputs,
            self._settings.signing_key,
            partitions[ENFORCEMENT.name],
            self._metrics,
        )
        # The thread waits until the loop has taken what it read: the loop is never handed more than that.
        self._side.start(
            lambda messages: asyncio.run_coroutine_threadsafe(self._take_side(messages), loop).result()
        )
        self._phase = "joining the consumer group"
        reloading = asyncio.create_task(self._reload.run())
        try:
            await self._run_app(self._worker)
        finally:
            reloading.cancel()

    def _window_s(self, loaded: Loaded) -> float:
        return read_back_s(loaded.config, self._pipeline.rules.remembers_s)

    def _config_taken(self, loaded: Loaded) -> None:
        self._read_back.window_s = self._window_s(loaded)

    async def _take_side(self, messages: list[Message]) -> None:
        refused = self._side_input.take(messages)
        self._side_input.settle()
        try:
            if self._worker and self._publisher:
                for message, reason in refused:
                    await self._bury_refused(self._worker, message, reason)
                await self._publisher.publish()
        except StreamError as error:
            _log.error("an order was refused", reason=str(error))
            self._failed.set()

    async def _bury_refused(self, worker: Worker, message: Message, reason: str) -> None:
        """Every process reads it; one of them keeps it."""
        if self._desk.is_mine((message.key or b"").decode(errors="replace")):
            await worker.bury(message, "decode", reason)

    async def _run_app(self, worker: Worker) -> None:
        settings = self._settings
        app = build_app(settings.connection, settings.group, settings.instance, self, worker.handle)
        failed = asyncio.create_task(self._failed.wait())
        waits = [
            failed,
            asyncio.create_task(self._stopping.wait()),
            asyncio.create_task(app.wait_until_stopped()),
        ]
        try:
            await app.start()
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        except Exception as error:
            raise StreamError(f"Faust did not start: {type(error).__name__}: {error}") from error
        finally:
            for each in waits:
                each.cancel()
            self._outputs.stop_soon()
        self._phase = "stopping"
        if app.crash_reason is None and not self._outputs.failure:
            left = await self._leave(app)
            await self._outputs.deliver()
            _log.info("stopped: outputs delivered", left_group=left)
            return
        # Nothing more is committed: what was read since the last commit is read again.
        self._raise_why(app.crash_reason)

    def _raise_why(self, reason: BaseException | None) -> None:
        if self._outputs.failure:
            raise OutputLostError(self._outputs.failure) from reason
        if isinstance(reason, StreamError):
            raise reason
        raise StreamError(f"the stream app crashed: {type(reason).__name__}: {reason}") from reason

    async def _leave(self, app: StreamApp) -> bool:
        """Commit and leave the group; False when the broker does not answer in time.

        Then the outputs' input is read again after the restart, as after a crash.
        """
        leaving = asyncio.create_task(app.stop())
        done, _ = await asyncio.wait([leaving], timeout=_STOP_TIMEOUT_S)
        if not done:
            leaving.cancel()
            return False
        leaving.result()
        return True

    def _stop(self) -> None:
        self._stopping.set()
        self._side.interrupt()

    async def _beat(self) -> None:
        beats = 0
        while True:
            self._beaten = time.monotonic()
            self._outputs.poll()
            self._metrics.output_queue.set(self._outputs.waiting)
            if self._outputs.failure:
                self._failed.set()
            if beats % _BEATS_PER_TICK == 0:
                self._metrics.pipeline.update(self._pipeline.metrics())
                self._metrics.rules.info({"version": self._pipeline.rules.version})
                await self._tick()
            beats += 1
            await asyncio.sleep(_BEAT_S)

    async def _tick(self) -> None:
        if self._worker and self._phase is None:
            try:
                await self._worker.tick()
                await self._worker.publish_learned()
                if self._publisher:
                    await self._publisher.publish()
            except StreamError as error:
                _log.error("an output of the clock was refused", reason=str(error))
                self._failed.set()
