# SPDX-License-Identifier: Apache-2.0
"""What a stream app cannot use is kept with the reason, stops nothing, and can be sent again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer

from schemas.codec import encode
from schemas.letters import RETRIED, RETRIES
from tests.support.attacks import attack_batch
from tests.support.stream_process import StreamProcess
from tests.support.topic_io import read_all, read_records, write, write_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.kafka_broker import KafkaBroker

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60.0


@pytest.fixture
def broker(fresh_kafka: KafkaBroker) -> KafkaBroker:
    fresh_kafka.create_contract_topics()
    return fresh_kafka


@pytest.fixture
def app(broker: KafkaBroker, tmp_path: Path) -> Iterator[StreamProcess]:
    made = StreamProcess(tmp_path / "app", broker.bootstrap)
    yield made
    made.kill()


def nsp(broker: KafkaBroker, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nsp", "dead-letter", *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        cwd=ROOT,
        env={**os.environ, "NSP_BROKERS": broker.bootstrap},
    )


def shown(broker: KafkaBroker, *arguments: str) -> list[dict[str, Any]]:
    done = nsp(broker, "show", "--format", "json", *arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(each) for each in done.stdout.splitlines()]


def wait(condition: Callable[[], object], what: str, app: StreamProcess) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}:\n{app.log_tail()}"
        time.sleep(0.1)


def processed(app: StreamProcess, outcome: str = "processed") -> float:
    return app.metric(f'nsp_stream_messages_total{{outcome="{outcome}",topic="nsp.events"}}')


def letters_when(broker: KafkaBroker, count: int, app: StreamProcess) -> list[dict[str, Any]]:
    wait(lambda: app.metric("nsp_stream_dead_letters_total") > 0, "a letter is written", app)
    wait(lambda: app.metric("nsp_stream_output_queue ") == 0, "outputs are delivered", app)
    found = [each for each in read_all(broker.bootstrap, "nsp.dead-letter") if each.value() is not None]
    assert len(found) == count, app.log_tail()
    return shown(broker)


def told(broker: KafkaBroker) -> list[dict[str, Any]]:
    alerts = read_records(broker.bootstrap, "nsp.alerts")
    return [each for each in alerts if each["rule_id"] == "nsp.rce-egress" and each["audit"] is None]


def cuts(broker: KafkaBroker) -> list[str]:
    keys = [each.key().decode() for each in read_all(broker.bootstrap, "nsp.enforcement")]
    return [each for each in keys if "/process/" in each]


def test_a_detector_that_raises_stops_nothing_and_its_batch_is_judged_again_after_the_cure(
    broker: KafkaBroker, app: StreamProcess
) -> None:
    app.module = "tests.support.faulty_stream_app"
    app.start_and_wait()
    write_batches(broker.bootstrap, [attack_batch("node", 1)])
    (letter,) = letters_when(broker, 1, app)
    assert (letter["topic"], letter["stage"], letter["cut"]) == ("nsp.events", "detect", False)
    assert "ZeroDivisionError: the detector is \x1b[31mfaulty" in letter["reason"]
    assert letter["value"]["EventBatch"]["node"] == "node"
    assert processed(app, "partly") == 1
    assert told(broker) == []
    text = nsp(broker, "show").stdout
    assert "\\x1b[31mfaulty" in text
    assert "\x1b" not in text
    # The cure, and batches that follow: the one that failed is old by then, and read back at the start.
    assert app.stop() == 0, app.log_tail()
    app.module = "stream_apps"
    app.start_and_wait()
    write_batches(broker.bootstrap, [attack_batch("node", 2)])
    wait(lambda: len(told(broker)) == 1, "the second attack is told", app)
    dry = nsp(broker, "retry", "--id", letter["id"], "--dry-run")
    assert (dry.returncode, len(shown(broker))) == (0, 1)
    assert "1 would be sent" in dry.stdout
    done = nsp(broker, "retry", "--id", letter["id"])
    assert done.returncode == 0, done.stdout + done.stderr
    wait(lambda: len(told(broker)) == 2, "the first is told after the retry", app)
    wait(lambda: len(set(cuts(broker))) == 2, "both trees are cut", app)
    assert len({each["id"] for each in told(broker)}) == 2
    # It is remembered, and not done again unless somebody insists.
    assert [each["retried"] for each in shown(broker)] == [1]
    again = nsp(broker, "retry", "--reason", "zerodivision*faulty")
    assert again.returncode == 1
    assert "retried 1 times already" in again.stdout
    assert nsp(broker, "retry", "--id", letter["id"], "--force").returncode == 0
    wait(lambda: len(told(broker)) == 3, "told again", app)
    assert len({each["id"] for each in told(broker)}) == 2
    assert app.health() == "ok"


def test_a_letter_that_fails_again_carries_its_tries_and_is_given_up(
    broker: KafkaBroker, app: StreamProcess
) -> None:
    unknown = bytes.fromhex("c301") + b"\x01" * 8 + b"rest"
    corrupt = encode("EventBatch", attack_batch("node", 1))[:-3]
    app.start_and_wait()
    write(broker.bootstrap, "nsp.events", [(b"node", unknown), (b"node", corrupt)])
    write_batches(broker.bootstrap, [attack_batch("node", 1)])
    wait(lambda: len(told(broker)) == 1, "the next batch is processed", app)
    first, second = letters_when(broker, 2, app)
    assert "never released" in first["reason"]
    assert "update the stream apps" in first["cure"]
    assert (second["stage"], second["value"]["bytes"]) == ("decode", len(corrupt))
    newest = first
    for tries in (1, 2, 3):
        assert nsp(broker, "retry", "--id", newest["id"]).returncode == 0
        wait(lambda count=2 + tries: len(shown(broker)) == count, "it failed again", app)  # type: ignore[misc]
        newest = shown(broker)[-1]
        assert newest["retries"] == tries
        assert newest["headers"] == [{"key": RETRIES, "value": _base64(str(tries))}]
    given_up = nsp(broker, "retry", "--id", newest["id"])
    assert given_up.returncode == 1
    assert "after 3 retries" in given_up.stdout
    sent = [each for each in read_all(broker.bootstrap, "nsp.events") if each.value() == unknown]
    assert {each.partition() for each in sent} == {first["partition"]}
    assert [dict(each.headers() or ()).get(RETRIES) for each in sent] == [None, b"1", b"2", b"3"]
    marks = [each for each in read_all(broker.bootstrap, "nsp.dead-letter") if each.value() is None]
    assert next(dict(each.headers())[RETRIED].decode() for each in marks) == first["id"]


def test_a_letter_that_nobody_could_have_written_is_not_sent(broker: KafkaBroker) -> None:
    value = encode("EventBatch", attack_batch("node", 1))
    producer = Producer({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    producer.produce("nsp.profiles", b"newer", b"a/b", headers=[("h", b"1")])
    producer.produce("nsp.profiles", b"newest", b"a/b")
    assert producer.flush(TIMEOUT_S) == 0

    def letter(topic: str, partition: int, offset: int, content: bytes | None) -> bytes:
        record = {"topic": topic, "partition": partition, "offset": offset, "key": b"a/b", "value": content}
        rest = {"stage": "decode", "reason": "x", "failed_at_ns": 1, "value_bytes": -1, "headers": []}
        return encode("DeadLetter", {**record, **rest})

    letters = [
        letter("nsp.profiles", 0, 0, b"forged"),
        letter("nsp.profiles", 0, 0, b"newer"),
        letter("nsp.events", 3, 7, value),
        letter("nsp.events", 99, 7, value),
        letter("nsp.dead-letter", 0, 0, value),
        letter("\x1b[2Jother", 0, 0, value),
        letter("nsp.profiles", 0, 1, None),
        b"no letter",
    ]
    write(broker.bootstrap, "nsp.dead-letter", [(b"k", each) for each in letters])
    done = nsp(broker, "retry", "--reason", "x")
    assert done.returncode == 1
    by_id = {line.split()[0]: line for line in done.stdout.splitlines() if "not sent" in line}
    for number, reason in enumerate((
        "another message there", "newer message of its key", "no more to compare with", "no partition 99",
        "no topic of ours", "no topic of ours", "deletes something",
    )):  # fmt: skip
        assert reason in by_id[f"0/{number}"]
    assert "\x1b" not in done.stdout
    assert "1 messages on the topic are no letters" in done.stderr
    assert len(read_all(broker.bootstrap, "nsp.profiles")) == 2
    forced = nsp(broker, "retry", "--force", "--id", "0/1", "--id", "0/2")
    assert forced.returncode == 0, forced.stdout
    assert [each.value() for each in read_all(broker.bootstrap, "nsp.profiles")] == [
        b"newer",
        b"newest",
        b"newer",
    ]
    assert [each.partition() for each in read_all(broker.bootstrap, "nsp.events")] == [3]


def _base64(text: str) -> str:
    import base64  # noqa: PLC0415 - one use

    return base64.b64encode(text.encode()).decode()
