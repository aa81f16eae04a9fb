# SPDX-License-Identifier: Apache-2.0
"""`nsp replay` on a real Kafka: the same ids as live, and nothing on the broker is another for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from nsp import replay_reading
from nsp.kafka import Cluster
from schemas.codec import encode
from schemas.topics import TOPICS
from tests.support.attacks import attack_batch
from tests.support.batches import POD_UID, pod_record
from tests.support.stream_process import GROUP, StreamProcess
from tests.support.topic_io import committed, read_records, write, write_batches

if TYPE_CHECKING:
    from tests.support.kafka_broker import KafkaBroker

ROOT = Path(__file__).parents[2]
NODES, ATTACKS = 5, 4
WAIT_S = 60.0
PROFILE = """
apiVersion: nsp.security/v1alpha1
kind: SecurityProfile
metadata: {name: web, namespace: shop}
spec:
  actions: [enforce]
  selector: {matchLabels: {app: shop}}
  default: {egress: {cidr4: [10.0.0.0/8]}}
"""


def nsp(bootstrap: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nsp", *arguments],
        env={**os.environ, "NSP_BROKERS": bootstrap},
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def broker(fresh_kafka: KafkaBroker) -> KafkaBroker:
    """An empty broker with our topics."""
    assert nsp(fresh_kafka.bootstrap, "topics", "create").returncode == 0
    return fresh_kafka


def replayed(bootstrap: str, *arguments: str) -> dict[str, Any]:
    done = nsp(bootstrap, "replay", "--since", "1h", "--format", "json", *arguments)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def ends(bootstrap: str) -> dict[tuple[str, int], tuple[int, int]]:
    """Watermarks of every partition of every topic but the client's own."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "watermarks", "log_level": 0})
    try:
        found = {}
        for name in TOPICS:
            for partition in consumer.list_topics(name, timeout=30).topics[name].partitions:
                place = TopicPartition(name, partition)
                found[name, partition] = consumer.get_watermark_offsets(place, timeout=30)
        return found
    finally:
        consumer.close()


def live_ids(bootstrap: str, expected: int, app: StreamProcess) -> set[str]:
    deadline = time.monotonic() + WAIT_S
    while True:
        alerts = [each for each in read_records(bootstrap, "nsp.alerts") if each["audit"] is None]
        if len({each["node"] for each in alerts}) == NODES and len(alerts) >= expected:
            return {each["id"] for each in alerts}
        assert time.monotonic() < deadline, f"{len(alerts)} alerts\n{app.log_tail()}"
        time.sleep(0.5)


def test_live_and_replay_give_the_same_ids_and_replay_changes_nothing(
    broker: KafkaBroker, tmp_path: Path
) -> None:
    bootstrap = broker.bootstrap
    write(bootstrap, "nsp.pods", [(POD_UID.encode(), encode("Pod", pod_record()))])
    now_ns = time.time_ns()
    batches = [
        attack_batch(f"node-{node}", number, now_ns)
        for number in range(1, ATTACKS + 1)
        for node in range(NODES)
    ]
    app = StreamProcess(tmp_path / "app", bootstrap)
    app.start_and_wait()
    try:
        write_batches(bootstrap, batches)
        said = live_ids(bootstrap, NODES * ATTACKS, app)
    finally:
        app.stop()
    write(bootstrap, "nsp.events", [(b"node-0", b"no batch")])
    before = ends(bootstrap), committed(bootstrap, GROUP, "nsp.events")
    found = replayed(bootstrap, "--config", str(tmp_path / "app" / "stream.yaml"))
    assert (ends(bootstrap), committed(bootstrap, GROUP, "nsp.events")) == before
    assert committed(bootstrap, "nsp-command", "nsp.events") == {}
    examples = {each["id"] for row in found["alerts"]["rows"] for each in row["examples"]}
    assert found["alerts"]["total"] == len(said)
    assert examples <= said
    assert examples
    assert found["read"]["messages"] == len(batches) + 1
    assert (found["complete"], found["unusable"]["messages"]) == (False, 1)


def test_a_profile_is_tried_on_what_was_done(broker: KafkaBroker, tmp_path: Path) -> None:
    bootstrap = broker.bootstrap
    write(bootstrap, "nsp.pods", [(POD_UID.encode(), encode("Pod", pod_record()))])
    write_batches(bootstrap, [attack_batch("node-9", number) for number in range(1, 4)])
    profile, page = tmp_path / "profile.yaml", tmp_path / "report.html"
    profile.write_text(PROFILE)
    before = ends(bootstrap)
    found = replayed(bootstrap, "--profile", str(profile))
    assert found["profiles"]["tried"] == ["shop/web"]
    assert found["profiles"]["refused"] > 0
    assert {each["workload"] for each in found["profiles"]["byWorkload"]} == {"shop/Deployment/shop"}
    done = nsp(
        bootstrap, "replay", "--since", "1h", "--profile", str(profile), "--format", "html", "-o", str(page)
    )
    assert done.returncode == 0, done.stderr
    assert "shop/Deployment/shop" in page.read_text()
    assert ends(bootstrap) == before


def test_times_bound_what_is_read(broker: KafkaBroker) -> None:
    bootstrap = broker.bootstrap
    write_batches(bootstrap, [attack_batch("node-5", 1)])
    assert replayed(bootstrap, "--until", "30m")["read"]["messages"] == 0
    assert replayed(bootstrap)["read"]["messages"] >= 1
    assert nsp(bootstrap, "replay", "--since", "1m", "--until", "2m").returncode == 2


def test_partitions_that_wait_for_others_lose_and_repeat_nothing(
    broker: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client forgets what it has fetched of a partition that is paused, and fetches it again."""
    monkeypatch.setattr(replay_reading, "MAX_AHEAD_BYTES", 20_000)
    each = 200
    for number in range(NODES):  # one node after the other: all partitions but one are always far ahead
        write_batches(broker.bootstrap, [attack_batch(f"node-{number}", at) for at in range(1, each + 1)])
    now_ns = time.time_ns()
    reader = replay_reading.EventReader(Cluster(broker.bootstrap), now_ns - 3600 * 10**9, now_ns)
    found = list(reader.messages())
    assert len({message.place for message in found}) == len(found) == reader.total == NODES * each
    times = [message.wall_ns for message in found]
    assert times == sorted(times)
