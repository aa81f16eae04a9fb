# SPDX-License-Identifier: Apache-2.0
"""``kill -9`` in the middle of an attack: the attacker ends cut, and nothing is unaccounted for.

Every topic holds garbage meanwhile, in every partition.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.support.closed_loop import closed_loop

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.closed_loop import ClosedLoop
    from tests.support.kafka_broker import KafkaBroker

ATTACK_RULES = {"nsp.rce-egress", "nsp.reverse-shell"}
AWAY_S = 3.0
BROKER_AWAY_S = 10.0
SILENCE_S = 2.0


def assert_cut_and_accounted(loop: ClosedLoop) -> None:
    """The attacker is cut for good, the shop never failed, each event is read or counted."""
    applied = loop.wait_for("APPLIED")
    time.sleep(SILENCE_S)
    totals = loop.finish()
    assert loop.leaked_after(applied["applied_boot_ns"]) == []
    assert loop.customer.lines[-1]["failed"] == 0
    assert totals.seen > 0
    assert totals.unaccounted == 0, totals
    assert loop.observer.read().unreadable > 0


def test_the_sensor_dies_before_the_cut(fresh_kafka: KafkaBroker, tmp_path: Path) -> None:
    with closed_loop(fresh_kafka, tmp_path / "logs") as loop:
        loop.pour_garbage()
        loop.attacker.tell("go")
        loop.scene.kill("sensor")
        time.sleep(AWAY_S)
        assert loop.observer.status("APPLIED") is None  # or this was a death after the cut
        loop.scene.start_sensor()
        assert_cut_and_accounted(loop)


def test_the_sensor_dies_after_the_cut_which_stays_in_force(fresh_kafka: KafkaBroker, tmp_path: Path) -> None:
    with closed_loop(fresh_kafka, tmp_path / "logs") as loop:
        loop.pour_garbage()
        loop.attack()
        applied = loop.wait_for("APPLIED")
        loop.scene.kill("sensor")
        time.sleep(AWAY_S)
        assert loop.leaked_after(applied["applied_boot_ns"]) == []
        loop.scene.start_sensor()
        loop.scene.wait_until_sensor_is_healthy()
        assert_cut_and_accounted(loop)


def test_the_stream_app_dies_in_the_middle(fresh_kafka: KafkaBroker, tmp_path: Path) -> None:
    with closed_loop(fresh_kafka, tmp_path / "logs") as loop:
        loop.pour_garbage()
        loop.attacker.tell("go")
        loop.scene.kill("stream app")
        time.sleep(AWAY_S)
        loop.scene.start_stream()
        assert_cut_and_accounted(loop)
        # Refused garbage is an alert too, of another rule and without a cut.
        alerts = [each for each in loop.alerts() if each["rule_id"] in ATTACK_RULES]
        rules = [alert["rule_id"] for alert in alerts]
        assert len({alert["response"]["subject"] for alert in alerts}) == 1
        assert len(rules) == len(set(rules))  # an alert said twice has the same id


def test_the_broker_dies_in_the_middle(fresh_kafka: KafkaBroker, tmp_path: Path) -> None:
    with closed_loop(fresh_kafka, tmp_path / "logs") as loop:
        loop.pour_garbage()
        loop.attacker.tell("go")
        fresh_kafka.kill()
        time.sleep(BROKER_AWAY_S)
        fresh_kafka.restart()
        assert_cut_and_accounted(loop)
