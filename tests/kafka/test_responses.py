# SPDX-License-Identifier: Apache-2.0
"""A response that waits for a person, on a real Kafka: asked, approved, ordered, answered, told."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from schemas.codec import decode_as, encode
from schemas.signing import SigningKey, VerifyingKeys
from schemas.subject import enforcement_key
from tests.support.attacks import attack_batch
from tests.support.stream_process import StreamProcess
from tests.support.topic_io import read_all, read_records, write, write_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.kafka_broker import KafkaBroker

ROOT = Path(__file__).parents[2]
WAIT_S = 60.0
NODE = "worker-1"
ASK = (
    "  approval_for_s: 600\n"
    "  policies:\n"
    "    - {name: ask, rules: ['nsp.rce-egress'], approval: [kill], actions: [{action: kill, ttl_s: 3600}]}\n"
)


def when(found: Callable[[], Any], app: StreamProcess) -> Any:
    """What is found, when it is."""
    deadline = time.monotonic() + WAIT_S
    while not (result := found()):
        assert time.monotonic() < deadline, app.log_tail()
        time.sleep(0.2)
    return result


class Installation:
    """A broker, a stream app that asks, and a person with the key."""

    def __init__(self, broker: KafkaBroker, directory: Path) -> None:
        self.bootstrap = broker.bootstrap
        self.app = StreamProcess(directory, broker.bootstrap, SigningKey.generate(), respond=ASK)
        self.trusted = VerifyingKeys.from_pems([self.app.key.public_pem()])

    def nsp(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        key = str(self.app.directory / "enforcement.key.pem")
        return subprocess.run(
            [sys.executable, "-m", "nsp", *arguments],
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
            cwd=ROOT,
            env={**os.environ, "NSP_BROKERS": self.bootstrap, "NSP_SIGNING_KEY": key},
        )

    def waiting(self) -> list[dict[str, Any]]:
        """Each state of what waits, in order."""
        messages = read_all(self.bootstrap, "nsp.responses")
        return [decode_as("PendingResponse", self.trusted.verify(each.value())) for each in messages]

    def orders(self) -> list[dict[str, Any]]:
        messages = read_all(self.bootstrap, "nsp.enforcement")
        found = [self.trusted.verify(each.value()) for each in messages if b"/process/" in each.key()]
        return [decode_as("Enforcement", each) for each in found]

    def audits(self, status: str) -> list[dict[str, Any]]:
        alerts = read_records(self.bootstrap, "nsp.alerts")
        return [each for each in alerts if each["audit"] and each["audit"]["status"] == status]

    def attack(self, number: int = 1) -> dict[str, Any]:
        """An exploit; what then waits."""
        seen = len(self.waiting())
        write_batches(self.bootstrap, [attack_batch(NODE, number, time.time_ns())])
        return dict(when(lambda: self.waiting()[seen:], self.app)[0])

    def answer(self, order: dict[str, Any], outcome: str, **fields: Any) -> None:
        """Say something as the sensor of the node."""
        same = ("node", "subject", "generation", "alert_id", "evidence_boot_ns", "issued_at_ns")
        record = {
            **{name: order[name] for name in same}, "boot_id": order["subject"].split("/")[1],
            "outcome": outcome, "reason": "", "processes": 2, "sockets": 1,
            "applied_boot_ns": order["evidence_boot_ns"] + 9_000_000, "first_refused_boot_ns": 0,
            "refused_calls": 0, "refused_packets": 0, "reported_at_ns": time.time_ns(), **fields,
        }  # fmt: skip
        key = enforcement_key(order["node"], order["subject"])
        write(self.bootstrap, "nsp.enforcement-status", [(key, encode("EnforcementStatus", record))])


@pytest.fixture
def installed(fresh_kafka: KafkaBroker, tmp_path: Path) -> Iterator[Installation]:
    fresh_kafka.create_contract_topics()
    made = Installation(fresh_kafka, tmp_path / "app")
    made.app.start_and_wait()
    yield made
    made.app.kill()


def test_approved_ordered_answered_told_and_undone_with_what_it_opens(installed: Installation) -> None:
    waiting = installed.attack()
    assert (waiting["state"], waiting["action"], waiting["policy"]) == ("PENDING", "kill", "ask")
    assert installed.orders() == []
    shown = installed.nsp("responses", "pending")
    assert shown.returncode == 0, shown.stderr
    assert waiting["id"] in shown.stdout
    assert waiting["subject"] in shown.stdout

    approved = installed.nsp("responses", "approve", waiting["id"], "--wait", "0")
    assert approved.returncode == 0, approved.stderr
    (order,) = installed.orders()
    assert (order["subject"], order["killed"], order["quarantined"]) == (waiting["subject"], True, True)
    assert order["alert_id"] == waiting["alert_id"]
    assert "nothing waits" in installed.nsp("responses", "pending").stdout

    installed.answer(order, "APPLIED", killed=2)
    (event,) = when(lambda: installed.audits("performed"), installed.app)
    assert event["response"]["action"] == "kill"
    assert event["audit"]["by"] == installed.waiting()[-1]["decided_by"] != ""
    assert event["audit"]["processes_ended"] == 2
    times = ("first_seen_boot_ns", "decided_boot_ns", "map_written_boot_ns")
    assert all(event["audit"][name] for name in times)
    listed = installed.nsp("responses", "list").stdout
    assert f"the whole network of {order['subject']}" in listed
    assert "the sensor says applied" in listed

    released = installed.nsp("release", order["subject"], "--wait", "0", "--reason", "ours")
    assert released.returncode == 0, released.stderr
    assert f"+ the whole network of {order['subject']}" in released.stdout
    lift = installed.orders()[-1]
    installed.answer(lift, "ENDED", reason="lifted")
    (undone,) = when(lambda: installed.audits("undone"), installed.app)
    assert undone["audit"]["reopened"] == [f"the whole network of {order['subject']}"]
    assert undone["audit"]["by"] == "ours"


def test_rejected_is_not_ordered_and_not_asked_again(installed: Installation) -> None:
    waiting = installed.attack()
    rejected = installed.nsp("responses", "reject", waiting["id"], "--reason", "a test of ours")
    assert rejected.returncode == 0, rejected.stderr
    (event,) = when(lambda: installed.audits("refused"), installed.app)
    assert "a test of ours" in event["description"]
    again = installed.nsp("responses", "approve", waiting["id"], "--wait", "0")
    assert again.returncode == 1
    assert "waits no more: rejected" in again.stderr
    assert installed.orders() == []


def test_what_waits_outlives_a_kill_of_the_app(installed: Installation) -> None:
    waiting = installed.attack()
    installed.app.kill()
    installed.app.start_and_wait()
    figure = 'nsp_stream_pipeline_size{stage="respond",table="waiting"}'
    when(lambda: installed.app.metric(figure) == 1, installed.app)
    assert waiting["id"] in installed.nsp("responses", "pending").stdout
    assert [each["state"] for each in installed.waiting()] == ["PENDING"]


def test_what_somebody_without_the_key_writes_counts_for_nothing(installed: Installation) -> None:
    waiting = installed.attack()
    forged = SigningKey.generate().sign(encode("PendingResponse", {**waiting, "state": "REJECTED"}))
    write(installed.bootstrap, "nsp.responses", [(waiting["id"].encode(), forged)])
    shown = installed.nsp("responses", "pending")
    assert waiting["id"] in shown.stdout
