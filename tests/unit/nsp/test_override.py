# SPDX-License-Identifier: Apache-2.0
"""A person's order is newer than anything on the topic."""

from __future__ import annotations

from typing import Any

import pytest

from nsp.errors import MISUSED, CommandError
from nsp.override import Order, seconds_of
from schemas.codec import decode_as, encode

NOW_NS = 1_790_000_000_000_000_000
SUBJECT = "workload/0b9c1c52"
BLOCKED = [{"address": "203.0.113.9", "port": 80, "protocol": 6}]


def order(*, quarantined: bool) -> Order:
    return Order(SUBJECT, "n", quarantined, 60, "because")


def current(**changes: Any) -> dict[str, Any]:
    return order(quarantined=True).record(NOW_NS - 1, None) | {"blocked_destinations": BLOCKED} | changes


def test_a_first_order_is_dated_now_and_expires() -> None:
    record = order(quarantined=True).record(NOW_NS, None)
    assert record["generation"] == record["issued_at_ns"] == NOW_NS
    assert record["expires_at_ns"] == NOW_NS + 60_000_000_000
    assert record["quarantined"] is True
    assert decode_as("Enforcement", encode("Enforcement", record)) == record


def test_an_order_is_above_a_generation_from_a_clock_that_runs_ahead() -> None:
    record = order(quarantined=False).record(NOW_NS, current(generation=NOW_NS + 5))
    assert record["generation"] == NOW_NS + 6


def test_a_quarantine_keeps_blocked_destinations_and_a_release_lifts_them() -> None:
    assert order(quarantined=True).record(NOW_NS, current())["blocked_destinations"] == BLOCKED
    assert order(quarantined=False).record(NOW_NS, current())["blocked_destinations"] == []


def test_what_has_expired_is_not_revived() -> None:
    expired = current(expires_at_ns=NOW_NS)
    assert order(quarantined=True).record(NOW_NS, expired)["blocked_destinations"] == []


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86_400)])
def test_durations_have_a_unit(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "0s", "-1h", "1.5h", "1w", "1234567s"])
def test_other_durations_are_a_misuse(text: str) -> None:
    with pytest.raises(CommandError) as refusal:
        seconds_of(text)
    assert refusal.value.exit_code == MISUSED
