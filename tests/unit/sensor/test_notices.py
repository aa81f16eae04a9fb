# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from sensor.publish.losses import Losses
from sensor.publish.notices import MAX_WAITING, SLOTS, Notices


def test_positions_grow_and_stay_below_the_end_of_the_batch() -> None:
    notices = Notices(Losses())
    positions = []
    for end in (1000, 1000, 1064):
        notices.notice("ENFORCEMENT_REFUSED", "workload/x", "unsigned")
        positions += [event["position"] for _, event in notices.take(end)]
    assert positions == sorted(set(positions))
    assert all(position < 1064 for position in positions)
    assert positions[0] >= 1000 - SLOTS


def test_what_has_no_free_position_waits_for_the_ring_to_move() -> None:
    notices = Notices(Losses())
    for _ in range(SLOTS + 2):
        notices.notice("ENFORCEMENT_REFUSED", "", "x")
    assert len(notices.take(1000)) == SLOTS
    assert notices.take(1000) == []
    assert len(notices.take(1064)) == 2


def test_a_flood_is_bounded_and_counted() -> None:
    losses = Losses()
    notices = Notices(losses)
    for _ in range(MAX_WAITING + 5):
        notices.notice("ENFORCEMENT_REFUSED", "", "x")
    assert losses.enforcement__notices_full == 5


def test_a_kind_the_schema_does_not_know_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="BIRTHDAY"):
        Notices(Losses()).notice("BIRTHDAY", "", "")
