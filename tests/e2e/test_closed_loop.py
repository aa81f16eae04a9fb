# SPDX-License-Identifier: Apache-2.0
"""Seen, decided, cut, acknowledged: one attack through everything, on a real Kafka."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from schemas.subject import ProcessSubject, parse_subject
from tests.support.closed_loop import closed_loop

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.kafka_broker import KafkaBroker

SILENCE_S = 2.0


def test_an_attack_is_cut_and_the_service_goes_on(fresh_kafka: KafkaBroker, tmp_path: Path) -> None:
    with closed_loop(fresh_kafka, tmp_path / "logs") as loop:
        time.sleep(1.0)
        assert not loop.alerts()  # the shop's own shells are no alert
        loop.attack()
        applied = loop.wait_for("APPLIED")
        refused = loop.wait_for("FIRST_REFUSAL")
        served = loop.customer.lines[-1]["requests"]
        time.sleep(SILENCE_S)
        totals = loop.finish()

        alert = loop.observer.alert("nsp.rce-egress")
        assert alert is not None
        assert alert["severity"] == "CRITICAL"
        assert (alert["workload"]["namespace"], alert["workload"]["container"]) == ("shop", "web")
        assert alert["response"]["decision"] == "issued"
        subject = parse_subject(applied["subject"])
        assert isinstance(subject, ProcessSubject)
        roles = {entry["role"]: entry for entry in alert["lineage"]}
        assert subject.tgid == roles["cut-root"]["tgid"] != roles["service"]["tgid"]
        # The cut bites from its first map write on, which is before the last one that is acknowledged.
        assert applied["evidence_boot_ns"] < applied["applied_boot_ns"]
        assert applied["evidence_boot_ns"] < refused["first_refused_boot_ns"]
        assert loop.leaked_after(applied["applied_boot_ns"]) == []
        assert loop.customer.lines[-1]["requests"] > served
        assert loop.customer.lines[-1]["failed"] == 0
        assert totals.seen > 0
        assert (totals.unaccounted, totals.lost, totals.gaps) == (0, 0, 0)
