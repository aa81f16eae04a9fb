# SPDX-License-Identifier: Apache-2.0
"""Learning by real stream apps on a real Kafka: killed, taken over, and read by the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from schemas.codec import decode_as, encode
from schemas.signing import SigningKey
from stream_apps.assembly import shard_limits
from stream_apps.config.learn import Learn
from stream_apps.learn.merged import Merged, merge
from stream_apps.learn.record import from_record
from tests.support.learning import HOUR, SHOP, WEB, learning, merged, node, pod
from tests.support.stream_process import StreamProcess
from tests.support.topic_io import read_all, write, write_batches

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.kafka_broker import KafkaBroker

ROOT = Path(__file__).parents[2]
NODES = 4
HOURS = 6
WAIT_S = 60.0


def days() -> tuple[list[list[dict[str, Any]]], Merged]:
    """Batches by hour of pods on several nodes, and what a single reader learns of them."""
    expected = learning(*map(pod, range(NODES)))
    nodes = [node(f"node-{number}", (number,)) for number in range(NODES)]
    webs = [each.exec(each.service(WEB, serving=False), WEB, parent=0) for each in nodes]
    by_hour = []
    for hour in range(HOURS):
        batches = []
        for number, (on, web) in enumerate(zip(nodes, webs, strict=True)):
            on.ask(web, "db.example")
            on.answer(web, "db.example", ["10.3.0.5"])
            on.connect(web, "10.3.0.5", 5432)
            on.connect(web, f"198.51.100.{hour}", 443)
            on.connect(web, f"203.0.113.{number}", 8443)
            batches.append(on.batch())
            on.now_ns += HOUR
        by_hour.append(batches)
        for batch in batches:
            expected.process(batch, batch["clock"]["wall_ns"])
    return by_hour, merged(expected)


def learned(bootstrap: str) -> Merged | None:
    """The workload as the topic has it."""
    newest = {each.key(): each.value() for each in read_all(bootstrap, "nsp.observations")}
    records = [decode_as("Observations", value) for value in newest.values() if value]
    shards = [from_record(each, shard_limits(Learn())) for each in records if each["workload"] == SHOP]
    return merge(shards) if shards else None


def facts(found: Merged | None) -> Any:
    """What must not depend on who read when; counts may lag behind by a minute."""
    if found is None:
        return None
    units = {tuple(key): (each.units, each.wide_units, each.pods) for key, each in found.behaviours.items()}
    return found.nodes, found.pods, found.starts, found.units, found.wide_units, units


def wait_for(condition: Callable[[], bool], what: str, *apps: StreamProcess) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what + "\n".join(each.log_tail() for each in apps)
        time.sleep(0.2)


def nsp(bootstrap: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "nsp", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
        env={**os.environ, "NSP_BROKERS": bootstrap, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.chaos
def test_what_apps_learn_survives_kills_and_moves_and_becomes_a_profile(
    fresh_kafka: KafkaBroker, tmp_path: Path
) -> None:
    broker = fresh_kafka
    broker.create_contract_topics()
    bootstrap = broker.bootstrap
    write(
        bootstrap,
        "nsp.pods",
        [(each["uid"].encode(), encode("Pod", each)) for each in map(pod, range(NODES))],
    )
    by_hour, expected = days()
    key = SigningKey.generate()
    one, two = (StreamProcess(tmp_path / name, bootstrap, key) for name in ("one", "two"))
    try:
        one.start_and_wait()
        write_batches(bootstrap, [each for batches in by_hour[:2] for each in batches])
        wait_for(lambda: learned(bootstrap) is not None, "the first hours", one)
        two.start_and_wait()  # takes half of the nodes over
        write_batches(bootstrap, by_hour[2])
        one.kill()
        write_batches(bootstrap, by_hour[3])
        write_batches(bootstrap, by_hour[3])  # a sensor that sends again
        two.kill()
        one.start_and_wait()
        write_batches(bootstrap, [each for batches in by_hour[4:] for each in batches])
        wait_for(lambda: facts(learned(bootstrap)) == facts(expected), "everything, each once", one)
        assert one.stop() == 0
        last = learned(bootstrap)
        assert last is not None
        counts = {tuple(each): behaviour.count for each, behaviour in last.behaviours.items()}
        limits = {tuple(each): behaviour.count for each, behaviour in expected.behaviours.items()}
        assert all(counts[each] <= limits[each] for each in limits)
    finally:
        one.kill()
        two.kill()
    _becomes_a_profile(bootstrap, tmp_path)


def _becomes_a_profile(bootstrap: str, directory: Path) -> None:
    listed = nsp(bootstrap, "learn")
    assert SHOP in listed
    (line,) = map(json.loads, nsp(bootstrap, "learn", "-o", "json").splitlines())
    assert (line["workload"], line["pods"], line["mayEnforce"]) == (SHOP, NODES, False)
    file = directory / "profile.yaml"
    nsp(bootstrap, "learn", SHOP, "-o", str(file))
    assert "db.example  # first " in file.read_text()
    assert nsp(bootstrap, "apply", "-f", str(file), "--dry-run").startswith(
        "shop/deployment-shop created (dry run)"
    )
    whole = json.loads(nsp(bootstrap, "learn", SHOP, "-o", "json"))
    assert len(whole["observations"]) == NODES
    assert "withdrawn from 4 nodes" in nsp(bootstrap, "learn", SHOP, "--forget")
    assert SHOP not in nsp(bootstrap, "learn")
