# SPDX-License-Identifier: Apache-2.0
"""A profile on trial with real stream apps on a real Kafka: told dry, killed meanwhile, passed or held.

The trial lies in the past: its profile and its events were written a day ago, so nothing is waited for.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer

from schemas.codec import decode, decode_as, encode
from schemas.signing import SigningKey
from tests.support.batches import SECOND, WALL_OFFSET_NS
from tests.support.learning import HOUR, WEB, node, pod
from tests.support.profiles import profile
from tests.support.stream_process import StreamProcess
from tests.support.topic_io import read_all, read_records, write, write_batches

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.kafka_broker import KafkaBroker

ROOT = Path(__file__).parents[2]
WAIT_S = 60.0
HOURS = 26
KEY = "shop/web"


def wait_for(condition: Callable[[], bool], app: StreamProcess) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, app.log_tail()
        time.sleep(0.5)


def orders(bootstrap: str) -> list[bool]:
    """Whether each order of the profile was a dry run."""
    found = []
    for message in read_all(bootstrap, "nsp.enforcement"):
        name, record = decode(decode_as("SignedEnforcement", message.value())["payload"])
        if name == "ProfileOrder":
            found.append(record["profile"]["dry_run"])
    return found


def canary_alerts(bootstrap: str) -> list[str]:
    alerts = read_records(bootstrap, "nsp.alerts")
    return [each["response"]["reason"] for each in alerts if each["rule_id"] == "nsp.canary"]


def publish_at(bootstrap: str, record: dict[str, Any], wall_ns: int) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
    value = encode("SecurityProfile", record)
    producer.produce("nsp.profiles", value, KEY.encode(), timestamp=wall_ns // 1_000_000)
    assert producer.flush(30) == 0


def hours(began_ns: int, stopped: str) -> list[dict[str, Any]]:
    on = node()
    on.now_ns = began_ns - WALL_OFFSET_NS + SECOND
    web = on.exec(on.service(WEB, serving=False), WEB, parent=0)
    batches = []
    for hour in range(HOURS):
        on.connect(web, "198.51.100.7", 5432)
        if stopped and hour == 2:
            on.refuse(web, stopped, 443, reason="ADDRESS", generation=began_ns, alerted_only=True)
            on.connect(web, stopped, 443)
        batches.append(on.batch())
        on.now_ns += HOUR
    return batches


@pytest.mark.chaos
@pytest.mark.parametrize(("stopped", "expected"), [("", "passed"), ("203.0.113.5", "held")])
def test_a_trial_outlives_a_kill_and_comes_to_its_end(
    fresh_kafka: KafkaBroker, tmp_path: Path, stopped: str, expected: str
) -> None:
    fresh_kafka.create_contract_topics()
    bootstrap = fresh_kafka.bootstrap
    began_ns = time.time_ns() - (HOURS + 1) * HOUR
    record = profile(
        "web", namespace="shop", generation=began_ns, mode="ENFORCE", canary_for_ns=24 * HOUR,
        pod_selector={"match_labels": {"app": "shop"}, "match_expressions": []},
    )  # fmt: skip
    write(bootstrap, "nsp.pods", [(pod(0)["uid"].encode(), encode("Pod", pod(0)))])
    publish_at(bootstrap, record, began_ns)
    batches, key = hours(began_ns, stopped), SigningKey.generate()
    first = StreamProcess(tmp_path / "first", bootstrap, key)
    first.start_and_wait()
    try:
        write_batches(bootstrap, batches[: HOURS // 2])
        wait_for(lambda: orders(bootstrap) == [True], first)
        wait_for(lambda: bool(read_all(bootstrap, "nsp.observations")), first)
    finally:
        first.kill()
    second = StreamProcess(tmp_path / "second", bootstrap, key)
    second.start()
    try:
        write_batches(bootstrap, batches[HOURS // 2 :])
        wait_for(lambda: expected in canary_alerts(bootstrap), second)
        wait_for(lambda: orders(bootstrap) == ([True, False] if expected == "passed" else [True]), second)
    finally:
        second.stop()
    shown = subprocess.run(
        [sys.executable, "-m", "nsp", "get", "profiles"],
        env={**os.environ, "NSP_BROKERS": bootstrap},
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    assert f"canary-{expected}" in shown
