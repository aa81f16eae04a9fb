# SPDX-License-Identifier: Apache-2.0
"""A sensor tests itself as fast as it can, and the stream apps judge: does all of it arrive?

Each test is nine things that a real process does on the real kernel; whatever the judge does not find in the
batches from the broker is missing. Must be none of more than ten thousand.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from bench import machine, scene
from bench.errors import BenchError
from bench.statistics import percentile
from schemas.codec import decode_as
from schemas.partition import partition_for
from schemas.topics import EVENTS
from stream_apps.config.document import parse
from stream_apps.pipeline import Pipeline

TESTS: Final = int(os.environ.get("NSP_BENCH_SELFTESTS", "1600"))
# Shorter than a test takes: the next begins when the one before has been told.
INTERVAL_S: Final = "0.01"
TIMEOUT_S: Final = 280.0
NS_PER_MS: Final = 1_000_000


def run() -> dict[str, Any]:
    """Measure and return ``{"tests", "parts", "missing", "test_ms": {"p50", "p99"}, ...}``."""
    through = Pipeline(parse(""))
    took: list[float] = []
    with ExitStack() as stack:
        cgroup = stack.enter_context(scene.Cgroup("selftest"))
        brokers = stack.enter_context(scene.embedded_broker())
        sensor = stack.enter_context(scene.sensor(brokers, cgroup.path, "--selftest-interval", INTERVAL_S))
        consumer = Consumer({"bootstrap.servers": brokers, "group.id": "bench", "log_level": 0})
        stack.callback(consumer.close)
        partition = partition_for(scene.NODE.encode(), EVENTS.partitions)
        consumer.assign([TopicPartition(EVENTS.name, partition, OFFSET_BEGINNING)])
        began, cpu = time.monotonic(), machine.cpu_seconds(sensor.pid)
        while _figure(through, "tests") < TESTS:
            if time.monotonic() - began > TIMEOUT_S:
                message = f"only {_figure(through, 'tests')} tests within {TIMEOUT_S:.0f} s"
                raise BenchError(message)
            took += _read(consumer, through)
        elapsed, cpu = time.monotonic() - began, machine.cpu_seconds(sensor.pid) - cpu
    return {
        "tests": _figure(through, "tests"),
        "parts": _figure(through, "parts_expected"),
        "missing": _figure(through, "parts_missing") + _figure(through, "tests_missing"),
        "wrong": _figure(through, "tests_wrong"),
        "not_run": _figure(through, "tests_not_run"),
        "not_judged": _figure(through, "tests_not_judged"),
        "test_ms": {"p50": round(percentile(took, 50), 1), "p99": round(percentile(took, 99), 1)},
        "tests_per_s": round(_figure(through, "tests") / elapsed, 1),
        "sensor_cpu_ms_each": round(1000 * cpu / _figure(through, "tests"), 1),
    }


def _read(consumer: Consumer, through: Pipeline) -> list[float]:
    """Judge a message; how long the tests took that it tells of, in milliseconds."""
    message = consumer.poll(1.0)
    if message is None or message.error() is not None:
        return []
    batch = decode_as("EventBatch", message.value() or b"")
    through.process(batch, time.time_ns())
    tests = [event.get("self_test") for _, event in batch["events"]]
    return [(each["ended_boot_ns"] - each["began_boot_ns"]) / NS_PER_MS for each in tests if each]


def _figure(through: Pipeline, name: str) -> int:
    return through.metrics()["detect", f"self_test_{name}"]
