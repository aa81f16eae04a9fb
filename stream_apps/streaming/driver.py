# SPDX-License-Identifier: Apache-2.0
"""What is changed inside Faust's Kafka driver so that nothing is lost and nothing waits.

Faust 0.15 is pinned: this file overrides a handful of its internals, each for a measured reason.

- An offset is committed only when everything before it is done. Faust's own test lets one unfinished message
  at the head pass (``min(acked) - committed > 1``).
- Outputs are delivered before an offset is committed: Faust flushes its own producer there, which we do not
  use; ours is flushed too, and a failure ends the process before the commit.
- A fetch waits for data at most ``FETCH_MAX_WAIT_MS``; Faust has 1.5 s in its code, and a long fetch for the
  quiet partitions of a broker holds back the busy ones.
- Offsets are committed before partitions are given up, and whoever gets a partition first rebuilds the
  detectors' windows from what lies before its committed offset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, cast

from faust.transport.drivers import aiokafka as driver

from stream_apps.streaming.errors import StartError

if TYPE_CHECKING:
    from faust.types import TP
    from faust.types.transports import ConsumerT, ProducerT

# Idle, this is 50 fetches a second and broker, 3 % of a core (50 ms: 2 %); loaded, it bounds what a quiet
# partition's fetch can add to the time to block, of which the goal is 50 ms.
FETCH_MAX_WAIT_MS: Final = 20


class Hooks(Protocol):
    """What the driver asks of the runtime, on Faust's loop."""

    async def deliver_outputs(self) -> None:
        """Return when every output handed over so far is acknowledged by the broker.

        Raises:
            StreamError: It cannot be; nothing may be committed.
        """

    async def before_partitions(self, partitions: frozenset[int]) -> None:
        """Make ready for partitions that were somebody else's until now."""

    async def partitions_held(self, partitions: frozenset[int]) -> None:
        """These are ours from now on, and no others."""


class HookedApp(Protocol):
    """The app that owns the transport."""

    hooks: Hooks


class PromptConsumerThread(driver.AIOKafkaConsumerThread):
    """Fetches with a short wait."""

    def _create_worker_consumer(self, transport: driver.Transport) -> Any:
        consumer = super()._create_worker_consumer(transport)
        if not hasattr(consumer, "_fetch_max_wait_ms"):
            raise StartError("this aiokafka keeps fetch_max_wait_ms elsewhere; use the locked version")
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS  # noqa: SLF001 - Faust offers no setting
        return consumer


class StrictConsumer(driver.Consumer):
    """Commits strictly, and in time."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._held: frozenset[int] = frozenset()

    @property
    def _hooks(self) -> Hooks:
        return cast("HookedApp", self.app).hooks

    def _new_consumer_thread(self) -> PromptConsumerThread:
        return PromptConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _new_offset(self, tp: TP) -> int | None:
        acked = self._acked[tp]
        committed = self._committed_offset[tp]
        if acked and committed is not None:
            first = min(acked)
            if first > committed and not self._gap[tp].overlaps(committed, first):
                return None
        return super()._new_offset(tp)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Commit what is done, then give up."""
        if not self.should_stop:
            await self.commit()
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Make ready for what is new, then go on."""
        now = frozenset(each.partition for each in assigned)
        new, self._held = now - self._held, now
        if new and not self.should_stop:
            await self._hooks.before_partitions(new)
        if not self.should_stop:
            await self._hooks.partitions_held(now)
        await super().on_partitions_assigned(assigned, generation_id)


class DeliveringProducer(driver.Producer):
    """Stands where Faust flushes before a commit."""

    async def flush(self) -> None:
        """Deliver Faust's messages (there are none) and ours."""
        await super().flush()
        await cast("HookedApp", self.app).hooks.deliver_outputs()


class StrictTransport(driver.Transport):
    """The transport with both."""

    Consumer: ClassVar[type[ConsumerT]] = StrictConsumer
    Producer: ClassVar[type[ProducerT]] = DeliveringProducer
