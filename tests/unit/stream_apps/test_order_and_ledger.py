# SPDX-License-Identifier: Apache-2.0
"""Each event once; every hole noticed; every event accounted for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from stream_apps.correlate.ledger import LossLedger, Totals
from stream_apps.correlate.order import Ordering
from tests.support.batches import Node

if TYPE_CHECKING:
    from tests.support.batches import Record


def busy(node: Node, events: int) -> None:
    if len(node.images) == 1:
        node.service("/usr/sbin/nginx")
    for number in range(events):
        node.connect(1, "10.2.0.1", number)


def batch_of(node: Node, events: int, **fields: Any) -> Record:
    busy(node, events)
    return node.batch(**fields)


def ports(events: list[tuple[str, Record]]) -> list[int]:
    return [event["remote_port"] for _, event in events]


class TestOrdering:
    def test_a_batch_that_comes_again_is_dropped_whole(self) -> None:
        ordering, node = Ordering(), Node()
        batch = batch_of(node, 3)
        assert len(ordering.admit(batch).events) == 3
        again = ordering.admit(batch)
        assert (again.events, again.duplicates, again.gap_bytes) == ([], 3, 0)

    def test_events_read_again_in_other_batches_are_dropped(self) -> None:
        ordering, node = Ordering(), Node()
        busy(node, 6)
        events = node.events
        ordering.admit(node.batch(events[:4]))
        admitted = ordering.admit(node.batch(events[2:]))
        assert (ports(admitted.events), admitted.duplicates) == ([4, 5], 2)

    def test_a_missing_batch_is_a_gap(self) -> None:
        ordering, node = Ordering(), Node()
        ordering.admit(batch_of(node, 2))
        missing = batch_of(node, 3)
        admitted = ordering.admit(batch_of(node, 2))
        assert admitted.gap_bytes == missing["ring_end"] - missing["ring_start"]
        assert ordering.admit(batch_of(node, 1)).gap_bytes == 0

    def test_the_first_batch_of_a_node_is_no_gap(self) -> None:
        node = Node(position=1 << 30)
        assert Ordering().admit(batch_of(node, 1)).gap_bytes == 0

    def test_a_new_boot_begins_anew(self) -> None:
        ordering, node = Ordering(), Node()
        ordering.admit(batch_of(node, 3))
        rebooted = ordering.admit(batch_of(Node(boot_id="another"), 2))
        assert (len(rebooted.events), rebooted.gap_bytes, rebooted.new_ring) == (2, 0, True)

    def test_a_fresh_ring_on_the_same_boot_begins_anew(self) -> None:
        ordering, node = Ordering(), Node()
        ordering.admit(batch_of(node, 5))
        fresh = Node(now_ns=node.now_ns)
        fresh.notice("STARTED")
        batch = batch_of(fresh, 2)
        assert len(ordering.admit(batch).events) == 3
        assert ordering.admit(batch).duplicates == 3

    def test_a_fresh_ring_whose_notice_was_lost_begins_anew(self) -> None:
        ordering, node = Ordering(), Node()
        ordering.admit(batch_of(node, 5))
        assert len(ordering.admit(batch_of(Node(now_ns=node.now_ns), 2)).events) == 2

    def test_a_notice_shares_its_position_and_is_not_taken_for_a_duplicate(self) -> None:
        ordering, node = Ordering(), Node()
        busy(node, 1)
        node.notice("ENFORCEMENT_REFUSED", "unsigned: x")
        first = node.batch()
        admitted = ordering.admit(first)
        assert (len(admitted.events), admitted.notices) == (2, 1)
        assert len(ordering.admit(batch_of(node, 1)).events) == 1
        node.notice("ENFORCEMENT_REFUSED", "unsigned: y")
        only_notice = node.batch()
        assert ordering.admit(only_notice).notices == 1
        assert ordering.admit(only_notice).duplicates == 1
        assert ordering.admit(first).duplicates == 2

    def test_nodes_are_bounded(self) -> None:
        ordering = Ordering(max_nodes=2)
        for name in ("a", "b", "c"):
            ordering.admit(batch_of(Node(name=name), 1))
        assert ordering.evicted == 1


class TestLedger:
    def test_without_loss_everything_produced_was_seen(self) -> None:
        ledger, node = LossLedger(), Node()
        for _ in range(3):
            ledger.add(batch_of(node, 4))
        assert ledger.totals() == Totals(produced=12, seen=12)

    def test_what_the_ring_lost_and_counted_is_accounted_for(self) -> None:
        ledger, node = LossLedger(), Node()
        ledger.add(batch_of(node, 4))
        busy(node, 1)
        node.lose(5)
        ledger.add(batch_of(node, 1))
        assert ledger.totals() == Totals(produced=11, seen=6, lost=5)

    def test_a_loss_nobody_counted_is_unaccounted(self) -> None:
        ledger, node = LossLedger(), Node()
        node.seq += 3
        ledger.add(batch_of(node, 2))
        assert ledger.totals() == Totals(produced=5, seen=2, unaccounted=3)

    def test_a_missing_batch_is_unaccounted_and_a_gap(self) -> None:
        ledger, node = LossLedger(), Node()
        ledger.add(batch_of(node, 2))
        batch_of(node, 7)
        ledger.add(batch_of(node, 2))
        assert ledger.totals() == Totals(produced=11, seen=4, unaccounted=7, gaps=1)

    def test_a_counted_loss_not_numbered_yet_is_produced_and_lost(self) -> None:
        ledger, node = LossLedger(), Node()
        busy(node, 2)
        node.lost += 3
        ledger.add(node.batch())
        assert ledger.totals() == Totals(produced=5, seen=2, lost=3, unnumbered=3)
        node.seq += 3
        ledger.add(batch_of(node, 1))
        assert ledger.totals() == Totals(produced=6, seen=3, lost=3)

    def test_events_lost_in_the_sensor_are_accounted_for_but_diagnoses_are_no_events(self) -> None:
        ledger, node = LossLedger(), Node()
        losses = [
            {"stage": "decode", "reason": "malformed", "count": 2},
            {"stage": "kernel", "reason": "path_truncated", "count": 9},
            {"stage": "produce", "reason": "queue_full", "count": 9},
        ]
        busy(node, 3)
        node.seq += 2
        ledger.add(node.batch(losses=losses))
        assert ledger.totals() == Totals(produced=5, seen=3, lost=2)

    def test_repeated_batches_change_nothing_but_are_counted(self) -> None:
        ledger, node = LossLedger(), Node()
        first, second = batch_of(node, 2), batch_of(node, 3)
        for batch in (first, second, first, second):
            ledger.add(batch)
        assert ledger.totals() == Totals(produced=5, seen=5, duplicates=5)

    def test_a_sensor_that_restarts_counts_its_own_losses_from_zero(self) -> None:
        ledger, node = LossLedger(), Node()
        for count in (5, 2):
            busy(node, 1)
            node.seq += count
            ledger.add(node.batch(losses=[{"stage": "decode", "reason": "malformed", "count": count}]))
        assert ledger.totals() == Totals(produced=9, seen=2, lost=7)

    def test_an_account_opened_midway_starts_with_the_first_batch_as_its_base_line(self) -> None:
        ledger, node = LossLedger(), Node()
        node.lose(100)
        batch_of(node, 5)
        for _ in range(3):
            ledger.add(batch_of(node, 5))
        assert ledger.totals() == Totals(produced=10, seen=10)

    def test_a_reboot_keeps_the_old_account_in_the_sum(self) -> None:
        ledger = LossLedger()
        ledger.add(batch_of(Node(), 3))
        ledger.add(batch_of(Node(boot_id="another"), 4))
        assert ledger.totals() == Totals(produced=7, seen=7)

    def test_nodes_are_bounded_and_their_sums_kept(self) -> None:
        ledger = LossLedger(max_nodes=1)
        for name in ("a", "b"):
            ledger.add(batch_of(Node(name=name), 2))
        assert (ledger.evicted, ledger.totals().seen) == (1, 4)

    def test_notices_are_no_events(self) -> None:
        ledger, node = LossLedger(), Node()
        node.notice("STARTED")
        ledger.add(batch_of(node, 2))
        assert ledger.totals() == Totals(produced=2, seen=2)

    @given(
        st.lists(
            st.tuples(st.integers(0, 4), st.integers(0, 3), st.sampled_from(["once", "twice"])), max_size=12
        )
    )
    def test_whatever_is_lost_and_repeated_the_account_closes(
        self, steps: list[tuple[int, int, str]]
    ) -> None:
        ledger, node = LossLedger(), Node()
        produced = 0
        for events, lost, times in steps:
            node.lose(lost)
            produced += events + lost
            batch = batch_of(node, events)
            for _ in range(2 if times == "twice" else 1):
                ledger.add(batch)
        totals = ledger.totals()
        assert totals.unaccounted == 0
        assert totals.produced == totals.seen + totals.lost == produced
