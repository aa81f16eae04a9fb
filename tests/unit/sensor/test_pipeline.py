# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from schemas.codec import decode_as
from sensor.kernel.state import ProcessKey, ProcessValue
from sensor.publish import layout
from sensor.publish import pipeline as module
from sensor.publish.batch import BatchBuilder
from sensor.publish.identity import NodeIdentity
from sensor.publish.lineage import ProcessTable
from sensor.publish.losses import Losses
from sensor.publish.notices import Notices
from sensor.publish.pipeline import Pipeline
from sensor.publish.producer import BatchProducer, Pending
from sensor.publish.resume import BASE_STEP
from sensor.workload.table import WorkloadTable
from tests.support.ring_records import (
    FakeKernel,
    FakeRing,
    FakeWorkloadMap,
    NoFiles,
    exec_record,
    numbered,
    record,
)

if TYPE_CHECKING:
    import pytest

    from sensor.kernel.ring import RingChunk

WEB: dict[str, Any] = {"tgid": 10, "start_ns": 1000, "cgroup_id": 1}
CONNECT = record(layout.CONNECT, **WEB, remote_address="192.0.2.1", remote_port=443, protocol=6)


class Broker(BatchProducer):
    """A producer whose broker is this test."""

    def __init__(self, sensor: Pipeline) -> None:
        self.batches: list[Pending] = []
        self.room = True
        self.prompt = False  # acknowledges all when asked to flush
        self.reported = sensor.acknowledged

    def poll(self, _timeout_s: float = 0.0) -> None:
        pass

    def has_room(self) -> bool:
        return self.room

    def submit(self, batch: Pending) -> None:
        self.batches.append(batch)

    def flush(self, _timeout_s: float) -> int:
        if self.prompt:
            self.take(-1)
        return 0

    def take(self, place: int) -> None:
        """Acknowledge up to a batch."""
        self.reported(self.batches[place].sequence, self.batches[place].ring_end)

    def read(self) -> list[dict[str, Any]]:
        return [decode_as("EventBatch", batch.payload) for batch in self.batches]


def sensor_on(kernel: FakeKernel, limit_ms: int = 0) -> tuple[Pipeline, Broker, Notices]:
    losses = Losses()
    notices = Notices(losses)
    workloads = WorkloadTable("n", FakeWorkloadMap())
    workloads.created(1, "/")
    batch = BatchBuilder(ProcessTable(NoFiles()), workloads)
    sensor = Pipeline(kernel, batch, NodeIdentity("n", "boot", "1"), notices, losses, (10, limit_ms))
    broker = Broker(sensor)
    sensor.producer = broker
    return sensor, broker, notices


def positions(batches: list[dict[str, Any]]) -> list[int]:
    return [event["position"] for batch in batches for _, event in batch["events"]]


def test_batches_follow_each_other_without_a_gap() -> None:
    kernel = FakeKernel()
    sensor, broker, _ = sensor_on(kernel)
    sensor.prepare()
    for first in (0, 25):
        kernel.ring.write(numbered(*[CONNECT] * 25, first=first))
        sensor.step()
    batches = broker.read()
    assert [batch["sequence"] for batch in batches] == list(range(1, len(batches) + 1))
    assert [len(batch["events"]) for batch in batches] == [10, 10, 5] * 2
    assert all(a["ring_end"] == b["ring_start"] for a, b in pairwise(batches))
    assert positions(batches) == sorted(set(positions(batches)))
    accounts = [batch["cpus"][0] for batch in batches]
    assert accounts[-1]["last_seq"] - accounts[0]["first_seq"] + 1 == sum(a["events"] for a in accounts) == 50


def test_a_gap_in_the_numbers_is_an_event_the_kernel_counted_as_lost() -> None:
    kernel = FakeKernel()
    kernel.lost = {"ring_full": 7}
    sensor, broker, _ = sensor_on(kernel)
    sensor.prepare()
    kernel.ring.write(numbered(CONNECT, first=0) + numbered(CONNECT, first=8))
    sensor.step()
    (batch,) = broker.read()
    (cpu,) = batch["cpus"]
    assert cpu["last_seq"] - cpu["first_seq"] + 1 - cpu["events"] == 7
    assert {"stage": "kernel", "reason": "ring_full", "count": 7} in batch["losses"]


def test_the_ring_is_released_when_the_broker_has_it_and_noted_before() -> None:
    kernel = FakeKernel()
    sensor, broker, _ = sensor_on(kernel)
    sensor.prepare()
    kernel.ring.write(numbered(*[CONNECT] * 20))
    sensor.step()
    assert kernel.ring.released == 0
    broker.take(0)
    assert kernel.ring.released == broker.batches[0].ring_end == 10 * len(CONNECT)
    assert kernel.state.state.batch_sequence == 1
    assert kernel.state.state.ring_position % BASE_STEP == 10 * len(CONNECT)


def test_while_the_broker_takes_nothing_the_ring_is_left_alone() -> None:
    kernel = FakeKernel()
    sensor, broker, _ = sensor_on(kernel)
    sensor.prepare()
    broker.room = False
    kernel.ring.write(numbered(*[CONNECT] * 20))
    sensor.step()
    assert (broker.batches, kernel.ring.held_bytes) == ([], 0)
    broker.room = True
    sensor.step()
    assert len(broker.batches) == 2


def test_a_killed_sensors_successor_repeats_what_was_not_acknowledged() -> None:
    kernel = FakeKernel()
    sensor, broker, _ = sensor_on(kernel)
    sensor.prepare()
    kernel.ring.write(numbered(*[CONNECT] * 30))
    sensor.step()
    broker.take(0)

    successor, second_broker, _ = sensor_on(FakeKernel(kernel.ring.reopened(), kernel.state))
    successor.prepare()
    successor.step()
    first, second = positions(broker.read()), positions(second_broker.read())
    assert second == first[10:]
    assert [batch["sequence"] for batch in second_broker.read()] == [2, 3]


def test_ended_between_noting_and_releasing_nothing_is_repeated() -> None:
    kernel = FakeKernel()
    sensor, broker, _ = sensor_on(kernel)
    sensor.prepare()
    kernel.ring.write(numbered(*[CONNECT] * 30))
    sensor.step()
    released = kernel.ring.reopened()
    broker.take(1)

    successor, second_broker, _ = sensor_on(FakeKernel(released, kernel.state))
    successor.prepare()
    successor.step()
    assert positions(second_broker.read()) == positions(broker.read())[20:]
    assert second_broker.read()[0]["ring_start"] == broker.read()[1]["ring_end"]


def test_a_successor_knows_who_did_what_its_predecessor_did_not_get_out() -> None:
    kernel = FakeKernel()
    child: dict[str, Any] = {"tgid": 12, "start_ns": 3000, "cgroup_id": 1}
    # On the ring: a shell that has exited forked a child. Only the kernel remembers who came before.
    kernel.ring.write(numbered(record(layout.FORK, **child, parent_tgid=11, parent_start_ns=2000)))
    kernel.inventory_parts = [
        numbered(exec_record("/usr/bin/web", ["web"], kind=layout.PROCESS_INVENTORY, **WEB), first=1)
    ]
    kernel.state.known[12] = ProcessValue(3000, 0, None, (ProcessKey(11, 2000), ProcessKey(10, 1000)), 0, 0)
    sensor, broker, _ = sensor_on(kernel)
    assert sensor.prepare() == 1
    sensor.step()
    (batch,) = broker.read()
    chain = []
    index = batch["events"][0][1]["process"]
    while index:
        chain.append(batch["processes"][index]["tgid"])
        index = batch["processes"][index]["parent"]
    assert chain == [12, 11, 10]


def inventory_of(count: int) -> list[bytes]:
    return [
        numbered(
            exec_record("/bin/x", ["x"], kind=layout.PROCESS_INVENTORY, tgid=9 + n, start_ns=n, cgroup_id=1),
            first=n,
        )
        for n in range(count)
    ]


def test_an_inventory_larger_than_the_ring_is_sent_in_parts() -> None:
    parts = inventory_of(100)
    kernel = FakeKernel(FakeRing(len(b"".join(parts)) // 5))
    kernel.inventory_parts = parts
    sensor, broker, _ = sensor_on(kernel)
    broker.prompt = True
    assert sensor.prepare() == 100
    assert 0 < kernel.ring.held_bytes <= kernel.ring.size_bytes // 2
    sensor.step()
    read = broker.read()
    assert [
        batch["processes"][event["process"]]["tgid"] for batch in read for _, event in batch["events"]
    ] == [*range(9, 109)]
    assert all(left["ring_end"] == right["ring_start"] for left, right in pairwise(read))


def test_an_inventory_that_half_of_the_ring_holds_is_known_before_anything_is_sent() -> None:
    parts = inventory_of(100)
    kernel = FakeKernel(FakeRing(len(b"".join(parts)) * 2))
    kernel.inventory_parts = parts
    sensor, broker, _ = sensor_on(kernel)
    assert sensor.prepare() == 100
    assert broker.batches == []


def test_without_a_broker_a_large_inventory_does_not_keep_the_sensor_from_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "INVENTORY_WAIT_S", 0.02)
    kernel = FakeKernel(FakeRing(1024))
    kernel.inventory_parts = inventory_of(100)
    sensor, _, _ = sensor_on(kernel)
    assert sensor.prepare() == 100
    assert kernel.ring.released == 0


def test_what_a_detector_waits_for_does_not_wait_for_the_batch_to_age() -> None:
    kernel = FakeKernel()
    sensor, broker, _ = sensor_on(kernel, limit_ms=60_000)
    sensor.prepare()
    kernel.ring.write(numbered(CONNECT))
    sensor.step()
    assert broker.batches == []
    kernel.ring.write(numbered(exec_record("/bin/sh", ["sh"], **WEB, stdio_kind=bytes([4, 4, 4])), first=1))
    sensor.step()
    assert [batch.events for batch in broker.batches] == [2]


def test_haste_is_bounded_by_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "URGENT_PER_SECOND", 2)
    kernel = FakeKernel()
    sensor, broker, _ = sensor_on(kernel, limit_ms=60_000)
    sensor.prepare()
    for number in range(6):
        shell = exec_record("/bin/sh", ["sh"], **WEB, stdio_kind=bytes([4, 4, 4]))
        kernel.ring.write(numbered(shell, first=number))
        sensor.step()
    assert len(broker.batches) < 6


def test_a_notice_goes_out_by_itself_and_has_its_place_in_the_order() -> None:
    kernel = FakeKernel()
    sensor, broker, notices = sensor_on(kernel)
    sensor.prepare()
    kernel.ring.write(numbered(CONNECT))
    sensor.step()
    notices.notice("ENFORCEMENT_REFUSED", "workload/x", "unsigned")
    sensor.step()
    kernel.ring.write(numbered(CONNECT, first=1))
    sensor.step()
    batches = broker.read()
    assert [name for batch in batches for name, _ in batch["events"]] == [
        "nsp.SocketConnect", "nsp.SensorNotice", "nsp.SocketConnect",
    ]  # fmt: skip
    assert positions(batches) == sorted(set(positions(batches)))


def test_an_event_no_schema_type_holds_costs_its_batch_and_is_accounted_for() -> None:
    kernel = FakeKernel()
    sensor, broker, _ = sensor_on(kernel, limit_ms=60_000)
    sensor.prepare()
    kernel.ring.write(numbered(*[CONNECT] * 3))
    sensor.step()
    sensor._batch.events[1][1]["remote_port"] = "eighty"
    kernel.ring.write(numbered(*[CONNECT] * 8, first=3))
    sensor.step()
    sensor.drain(1.0)
    lost, good = broker.read()
    assert (lost["events"], len(good["events"])) == ([], 1)
    assert {"stage": "encode", "reason": "failed", "count": 10} in lost["losses"]
    assert lost["cpus"] == [{"cpu": 0, "first_seq": 1, "last_seq": 10, "events": 0}]


def test_draining_takes_everything_that_is_there() -> None:
    kernel = FakeKernel()
    sensor, broker, _ = sensor_on(kernel, limit_ms=60_000)
    sensor.prepare()
    kernel.ring.write(numbered(*[CONNECT] * 13))
    assert sensor.drain(5.0) == 0
    assert [batch.events for batch in broker.batches] == [10, 3]


class FloodedRing(FakeRing):
    """Whenever something is read, more has come."""

    def __init__(self, flood: bytes) -> None:
        super().__init__()
        self.flood = flood

    @property
    def unread_bytes(self) -> int:
        return len(self.flood)

    def read(self, limit_bytes: int) -> RingChunk | None:
        self.write(self.flood)
        return super().read(limit_bytes)


def test_a_flood_that_outruns_the_sensor_holds_up_neither_health_nor_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "STEP_S", 0.01)
    sensor, broker, _ = sensor_on(FakeKernel(FloodedRing(numbered(*[CONNECT] * 100))))
    ticks: list[float] = []
    sensor.run(lambda: len(ticks) >= 3, lambda: ticks.append(sensor.last_step))
    assert ticks == sorted(set(ticks))  # each a step of its own
    assert len(broker.batches) > 3
