# SPDX-License-Identifier: Apache-2.0
"""The drain loop: ring, decode, batch, encode, produce, release.

Input: the kernel's ring. Output: EventBatch messages, and the ring released as far as the broker has them.
One thread runs it. Each step is a few microseconds when there is nothing to do; :meth:`Pipeline.run` sleeps
between steps until an exec wakes it, or for a while: shortly after a service's descendant acted, else longer.

Failure: while the broker is away the ring is not read. What is read is never dropped: a killed sensor's
successor reads everything that was not acknowledged again.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import structlog

from schemas.codec import encode
from schemas.errors import CodecError
from sensor.publish.decode import Decoder, look_ahead
from sensor.publish.ledger import Ledger, loss_entries
from sensor.publish.producer import Pending
from sensor.publish.resume import resume

if TYPE_CHECKING:
    from collections.abc import Callable

    from sensor.publish.batch import BatchBuilder
    from sensor.publish.identity import NodeIdentity
    from sensor.publish.losses import Losses
    from sensor.publish.notices import Notices
    from sensor.publish.ports import EventSource
    from sensor.publish.producer import BatchProducer
    from sensor.publish.resume import Resume

# One copy out of the ring: two to three batches; small enough to stay in the cache.
READ_BYTES: Final = 256 * 1024
# Between polls. Each costs half a millisecond of cold caches, whatever there is to do: a quiet node is polled
# seldom, and an exec wakes the sensor. 4 MB of ring hold this at 150,000 events a second; under load the
# loop does not sleep.
POLL_S: Final = 0.200
# While something is going on: what follows an exec (a name asked, a connect) wakes nobody.
ALERT_POLL_S: Final = 0.008
# A step ends after this long although the ring has more: health, metrics and a request to stop must not
# wait for a flood to end.
STEP_S: Final = 0.100
# A poll that found more than this is followed by short ones for a while: at that rate a long sleep could fill
# the ring. Ten times what a thousand events a second leave behind in POLL_S.
BUSY_BYTES: Final = 256 * 1024
BUSY_POLL_S: Final = 0.020
BUSY_S: Final = 1.0
# After an exec, before another may wake: a build machine execs a thousand times a second.
EXEC_PAUSE_S: Final = 0.004
# How long after a service's descendant acted: what an intruder does next comes within seconds.
ALERT_S: Final = 5.0
# Batches closed before their time because a service's descendant acted. Beyond this rate they wait for
# batch_ms as all do: an attack that fills batches by itself needs no help.
URGENT_PER_SECOND: Final = 50
# An inventory larger than half of the ring needs the broker to take the first part. Without one for so long
# the sensor starts all the same; what then finds no room is counted.
INVENTORY_WAIT_S: Final = 15.0
_ROOM_FLUSH_S: Final = 0.050
# The kernel's counters are read with a system call each; a reader of the account waits this long for them.
_COUNTERS_EVERY_S: Final = 1.0

_log = structlog.get_logger(__name__)


class Pipeline:
    """Moves events from the ring to the producer.

    Args:
        source: The kernel side.
        batch: Builder with the process and workload tables.
        identity: Who writes the batches.
        notices: The sensor's own words.
        losses: Counters.
        limits: Events and milliseconds after which a batch closes.
    """

    def __init__(
        self,
        source: EventSource,
        batch: BatchBuilder,
        identity: NodeIdentity,
        notices: Notices,
        losses: Losses,
        limits: tuple[int, int] = (500, 200),
    ) -> None:
        self._source = source
        self._batch = batch
        self._identity = identity
        self._notices = notices
        self._losses = losses
        self._limit_events = limits[0]
        self._limit_s = limits[1] / 1000
        state = source.state.sensor_state()
        boot_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self.resumed: Resume = resume(
            state.batch_sequence, state.ring_position, source.ring.position, boot_ns
        )
        self._base = self.resumed.base
        self._sequence = self.resumed.batch_sequence
        self._ledger = Ledger(len(source.sequences()), fresh=self.resumed.fresh and not source.ring.position)
        self._decoder = Decoder(batch, self._ledger, losses)
        self._backlog: list[tuple[bytes, int]] = []
        self._data = b""
        self._offset = 0
        self._start = source.ring.position  # ring position of _data[0]
        self._known_until = source.ring.position  # up to here prepare() has learned who did what
        self._batch_start = source.ring.position  # of the first event not in a closed batch
        self._opened_at: float | None = None
        self._urgent_tokens = float(URGENT_PER_SECOND)
        self._urgent_at = time.monotonic()
        self._cut_short = False  # the last step ended for STEP_S, with more to read
        self._busy_until = 0.0
        self._alert_until = 0.0
        self._loss_entries: list[dict[str, Any]] = []
        self._counters_at = 0.0
        self.last_step = time.monotonic()
        self.producer: BatchProducer | None = None

    def acknowledged(self, sequence: int, ring_end: int) -> None:
        """The broker has everything up to a ring position: note it, then let the kernel reuse the bytes.

        In this order. Ended in between, the successor finds the position noted and skips to it; in the
        other order it would find a ring that begins later than the noted batch ends, and number its
        batches as ones already written.
        """
        self._source.state.set_sensor_state(sequence, self._base + ring_end)
        self._source.ring.release(ring_end)

    @property
    def read_position(self) -> int:
        """Up to here, as published, events are in a batch, if only in the one that is being filled."""
        return self._base + self._start + self._offset

    @property
    def produced_position(self) -> int:
        """Up to here, as published, the kernel has written."""
        ring = self._source.ring
        return self._base + ring.position + ring.unread_bytes

    def prepare(self) -> int:
        """Skip what is noted as acknowledged, run the inventory, and learn from it before it is sent.

        The inventory comes in parts. While it fits into half of the ring, which it does on all but the
        largest nodes, nothing is sent before all of it is known; beyond that the ring is emptied in between.

        Returns:
            How many processes were there before the sensor.
        """
        source = self._source
        if self.resumed.fresh:
            source.state.set_sensor_state(self._sequence, self._base + source.ring.position)
        full = source.counters().get("ring_full", 0)
        until = time.monotonic() + INVENTORY_WAIT_S
        found = 0
        for _ in source.inventory():
            self._gather()
            if self._is_crowded() and time.monotonic() < until:
                found += self._learn()
                self._make_room(until)
        self._gather()
        if source.counters().get("ring_full", 0) > full:
            _log.error(
                "inventory_overflowed_the_ring", cure="see that the broker answers, or raise --ring-bytes"
            )
        return found + self._learn()

    def _gather(self) -> None:
        # At most one ring of bytes: what the kernel adds meanwhile finds no room beyond that.
        while (chunk := self._source.ring.read(READ_BYTES)) is not None:
            self._backlog.append((chunk.data, chunk.start))

    def _learn(self) -> int:
        processes = self._batch.processes
        unknown = [data for data, start in self._backlog if start >= self._known_until]
        self._known_until = self._source.ring.position
        found = look_ahead(unknown, processes, self._batch.addresses)
        for tgid, process in self._source.state.processes():
            keys = ((key.tgid, key.start_ns) for key in process.ancestors)
            processes.link_ancestors(tgid, process.start_ns, keys)
        self._skip(self.resumed.ring_position)
        return found

    def _is_crowded(self) -> bool:
        return self._source.ring.held_bytes > self._source.ring.size_bytes // 2

    def _make_room(self, until: float) -> None:
        """Send what was gathered, until half of the ring is free again or it took too long."""
        while self._is_crowded() and time.monotonic() < until:
            self.step()
            if self._opened_at is not None:
                self._close_batch()
            self._producer().flush(_ROOM_FLUSH_S)

    def _skip(self, position: int) -> None:
        """Drop from the backlog what the sensor before had acknowledged."""
        self._batch_start = max(self._batch_start, position)
        kept = [(data, start) for data, start in self._backlog if start + len(data) > position]
        if kept and kept[0][1] < position:
            data, start = kept[0]
            kept[0] = (data[position - start :], position)
        self._backlog = kept

    def run(self, stopping: Callable[[], bool], tick: Callable[[], None]) -> None:
        """Step until told to stop.

        Args:
            stopping: Asked between steps.
            tick: Run between steps, every 200 ms at the latest; for what is not on the path.
        """
        woken = False
        while not stopping():
            self.step()
            tick()
            if woken:
                time.sleep(EXEC_PAUSE_S)
            woken = self._source.ring.wait(0.0 if self._cut_short else self._pause())

    def _pause(self) -> float:
        now = time.monotonic()
        pause = BUSY_POLL_S if now < self._busy_until else POLL_S
        if now < self._alert_until:
            pause = ALERT_POLL_S
        if self._opened_at is not None:
            pause = min(pause, self._opened_at + self._limit_s - now)
        return max(0.0, pause)

    def step(self) -> bool:
        """Read, decode and send what is there now, for ``STEP_S`` at most.

        Returns:
            Whether there were events.
        """
        producer = self._producer()
        producer.poll()
        self.last_step = now = time.monotonic()
        self._cut_short = worked = False
        if self._source.ring.unread_bytes > BUSY_BYTES:
            self._busy_until = now + BUSY_S
        while producer.has_room():
            if self._offset >= len(self._data) and not self._read():
                break
            worked = True
            if self._opened_at is None:
                self._opened_at = now
            position = self._base + self._start
            self._offset = self._decoder.feed(self._data, self._offset, position, self._limit_events)
            if self._batch_is_full():
                self._alert_until = now + ALERT_S if self._batch.urgent else self._alert_until
                self._close_batch()
                producer.poll()
                self._cut_short = time.monotonic() - now >= STEP_S
                if self._cut_short:
                    break
        if self._is_due(now):
            self._close_batch()
        return worked

    def drain(self, timeout_s: float) -> int:
        """Before the end: take what is in the ring, send it, wait for the broker.

        Returns:
            Batches the broker has not acknowledged; the next sensor reads their events again.
        """
        until = time.monotonic() + timeout_s
        while self.step() and time.monotonic() < until:
            pass
        if self._opened_at is not None or self._notices:
            self._counters_at = 0.0
            self._close_batch()
        return self._producer().flush(max(0.0, until - time.monotonic()))

    def _producer(self) -> BatchProducer:
        if self.producer is None:
            raise RuntimeError("give the pipeline its producer before running it")
        return self.producer

    def _read(self) -> bool:
        if self._backlog:
            self._data, self._start = self._backlog.pop(0)
        else:
            ring = self._source.ring
            # One look at a mapped word, which is all that most polls of a quiet node do.
            chunk = ring.read(READ_BYTES) if ring.unread_bytes else None
            if chunk is None:
                return False
            self._data, self._start = chunk.data, chunk.start
        self._offset = 0
        self._ledger.learn(self._data)
        return True

    def _batch_is_full(self) -> bool:
        return len(self._batch.events) >= self._limit_events or self._batch.full

    def _is_due(self, now: float) -> bool:
        if self._opened_at is None:
            return bool(self._notices)
        if now - self._opened_at >= self._limit_s:
            return True
        return self._batch.urgent and self._may_hurry(now)

    def _may_hurry(self, now: float) -> bool:
        self._alert_until = now + ALERT_S
        earned = (now - self._urgent_at) * URGENT_PER_SECOND
        self._urgent_tokens = min(float(URGENT_PER_SECOND), self._urgent_tokens + earned)
        self._urgent_at = now
        if self._urgent_tokens < 1:
            return False
        self._urgent_tokens -= 1
        return True

    def _close_batch(self) -> None:
        ring_end = self._start + self._offset
        batch = self._batch
        batch.events.extend(self._notices.take(self._base + ring_end))
        self._opened_at = None
        events = len(batch.events)
        if not events and ring_end == self._batch_start:
            return
        self._sequence += 1
        record = batch.close(self._header(ring_end))
        self._batch_start = ring_end
        self._producer().submit(Pending(self._sequence, ring_end, events, self._encode(record)))

    def _header(self, ring_end: int) -> dict[str, Any]:
        cpus = self._ledger.take()
        if any(entry["last_seq"] - entry["first_seq"] + 1 != entry["events"] for entry in cpus):
            self._counters_at = 0.0  # a hole, and what explains it, in the same batch
        return {
            **self._identity.header,
            "sequence": self._sequence,
            "ring_start": self._base + self._batch_start,
            "ring_end": self._base + ring_end,
            "clock": {"boot_ns": time.clock_gettime_ns(time.CLOCK_BOOTTIME), "wall_ns": time.time_ns()},
            "cpus": cpus,
            "losses": self._lost(),
        }

    def _lost(self) -> list[dict[str, Any]]:
        now = time.monotonic()
        if now - self._counters_at >= _COUNTERS_EVERY_S:
            self._loss_entries = self.losses()
            self._counters_at = now
        return self._loss_entries

    def losses(self) -> list[dict[str, Any]]:
        """Everything lost, cut or done again so far, as a batch tells it."""
        sources = {
            "kernel": self._source.counters(),
            "lineage": self._batch.processes.counters,
            "workload": self._batch.workloads.counters,
        }
        return loss_entries(sources, self._losses)

    def _encode(self, record: dict[str, Any]) -> bytes:
        try:
            return encode("EventBatch", record)
        except CodecError as error:
            # A value no schema type holds. The batch goes on without its events, which the account then
            # shows as lost, because what comes after must not wait for it.
            _log.error("batch_not_encodable", error=str(error), sequence=record["sequence"])
            self._losses.encode__failed += len(record["events"])
            empty = {
                **record,
                "cpus": [{**entry, "events": 0} for entry in record["cpus"]],
                "losses": self.losses(),
                "processes": record["processes"][:1],
                "events": [],
            }
            return encode("EventBatch", empty)
