# SPDX-License-Identifier: Apache-2.0
"""An attack is judged by its own cut; a report by all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from demo.attack import Attack, Times, account, times_of
from demo.report import Report

OFFSET = 1_000_000
TIMES = Times(first_forbidden_event_ns=100, decided_ns=200, map_written_ns=300, first_refused_ns=400)
BLOCKED_AT = OFFSET + TIMES.map_written_ns
GOOD = Report(
    alerts=1,
    rules=["nsp.rce-egress"],
    attacks=2,
    attacks_cut=2,
    shells_opened=1,
    time_to_block_ms=20.0,
    decided_after_ms=10.0,
    first_refused_after_ms=30.0,
    service_requests=9,
    service_requests_failed=0,
    attacker_bytes_before_block=5,
    attacker_bytes_after_block=0,
    attacker_beacons_after_block=0,
    profile_reached=1,
    profile_wrongly_refused=0,
    profile_refused=["EPERM", "EPERM"],
    events_produced=7,
    events_seen=7,
    events_counted_lost=0,
    events_unaccounted=0,
    recorded=False,
)


def line(attack: int, at_wall_ns: int, **fields: Any) -> dict[str, Any]:
    return {"attack": attack, "at_wall_ns": at_wall_ns, **fields}


def test_bytes_up_to_the_block_are_before_it_and_later_ones_after() -> None:
    lines = [line(1, BLOCKED_AT, bytes=3), line(1, BLOCKED_AT + 1, bytes=5), {"event": "ready"}]
    assert account(1, TIMES, lines, OFFSET) == Attack(TIMES, 3, 5, 0)


def test_a_late_beacon_counts_and_an_early_one_does_not() -> None:
    lines = [line(1, at, event="beacon") for at in (BLOCKED_AT, BLOCKED_AT + 1)]
    assert account(1, TIMES, lines, OFFSET) == Attack(TIMES, 0, 0, 1)


def test_what_arrives_counts_for_its_own_attack_only() -> None:
    lines = [line(1, BLOCKED_AT + 1, bytes=5), line(2, BLOCKED_AT, bytes=7)]
    assert account(1, TIMES, lines, OFFSET) == Attack(TIMES, 0, 5, 0)
    assert account(2, TIMES, lines, OFFSET) == Attack(TIMES, 7, 0, 0)


def test_a_connection_without_a_byte_is_no_open_shell() -> None:
    assert not account(1, TIMES, [line(1, OFFSET, event="shell")], OFFSET).shell_opened
    assert account(1, TIMES, [line(1, OFFSET, bytes=1)], OFFSET).shell_opened


def test_the_times_are_brought_to_the_boot_clock() -> None:
    applied = {"evidence_boot_ns": 100, "issued_at_ns": OFFSET + 200, "applied_boot_ns": 300}
    assert times_of(applied, {"first_refused_boot_ns": 400}, OFFSET) == TIMES


def test_a_report_fails_when_an_attack_was_not_cut_or_no_shell_was_ever_open() -> None:
    assert GOOD.failures() == []
    assert replace(GOOD, attacks_cut=1).failures() == ["every attack was cut"]
    assert replace(GOOD, shells_opened=0).failures() == ["the attacker had a shell before a cut"]


def test_a_report_fails_for_each_leak_failed_request_and_unaccounted_event() -> None:
    assert len(replace(GOOD, attacker_bytes_after_block=1).failures()) == 1
    assert len(replace(GOOD, attacker_beacons_after_block=1).failures()) == 1
    assert len(replace(GOOD, service_requests_failed=1).failures()) == 1
    assert len(replace(GOOD, events_unaccounted=1).failures()) == 1
