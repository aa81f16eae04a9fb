# SPDX-License-Identifier: Apache-2.0
"""What becomes of an order: in the kernel, in the status, and in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import decode_as, encode
from schemas.signing import SigningKey
from schemas.subject import enforcement_key
from sensor.enforce.active import LONGEST_RETRY_NS
from sensor.enforce.controller import RESTAMP_NS
from sensor.enforce.ledger import Ledger
from sensor.enforce.notices import BURST
from sensor.kernel.state import EnforcementValue, ProcessKey

if TYPE_CHECKING:
    from tests.support.fake_enforcement import FakeMaps

    from .conftest import Lab

BOOT = "6f1d0c52-4a3e-4b5e-9a53-0c7de8a4b1f2"
SHELL = ProcessKey(tgid=20, start_ns=1020)
SUBJECT = f"process/{BOOT}/20/1020"
SECOND = 10**9


def cut(maps: FakeMaps, lab: Lab) -> set[int]:
    return maps.cut_processes(lab.clock.boot)


def test_an_order_is_carried_out_and_acknowledged(lab: Lab) -> None:
    lab.send(generation=5)
    assert cut(lab.maps, lab) == {20, 21}
    assert lab.maps.process_quarantines[SHELL].expires_ns == lab.clock.boot + 600 * SECOND
    status = lab.last()
    assert status["outcome"] == "APPLIED"
    assert (status["subject"], status["generation"], status["processes"]) == (SUBJECT, 5, 2)
    assert status["applied_boot_ns"] == lab.clock.boot
    assert (status["alert_id"], status["evidence_boot_ns"]) == ("a1", 77)
    read = decode_as("EnforcementStatus", encode("EnforcementStatus", status))
    assert {name: read[name] for name in status} == status


def test_the_same_order_once_more_changes_nothing(lab: Lab) -> None:
    message = lab.order()
    for _ in range(3):
        lab.controller.message(*message)
    assert lab.recorder.outcomes() == ["APPLIED"]
    assert lab.controller.counters["repeated"] == 2


def test_a_lower_generation_is_a_replay(lab: Lab) -> None:
    old = lab.order(generation=1)
    lab.send(generation=2, quarantined=False)
    lab.controller.message(*old)
    assert cut(lab.maps, lab) == set()
    assert lab.recorder.outcomes() == ["ENDED", "REFUSED"]
    assert lab.last()["reason"].startswith("replayed: ")
    assert lab.controller.refused == {"replayed": 1}
    assert lab.recorder.notices == [
        ("ENFORCEMENT_REFUSED", SUBJECT, "replayed: generation 2 was obeyed before")
    ]


def test_a_lift_frees_and_says_so(lab: Lab) -> None:
    lab.send(generation=1)
    lab.maps.refuse(SHELL, 99)
    lab.send(generation=2, quarantined=False)
    assert cut(lab.maps, lab) == set()
    assert lab.maps.process_quarantines == {}
    assert (lab.last()["outcome"], lab.last()["reason"], lab.last()["generation"]) == ("ENDED", "lifted", 2)
    assert lab.last()["refused_packets"] == 1


def test_a_tombstone_does_not_lift_what_is_in_force(lab: Lab) -> None:
    lab.send(generation=3)
    lab.controller.message(enforcement_key("worker-1", SUBJECT), None)
    assert cut(lab.maps, lab) == {20, 21}
    assert (lab.last()["outcome"], lab.last()["generation"]) == ("REFUSED", 3)
    assert lab.last()["reason"].startswith("unsigned: ")


def test_a_tombstone_after_the_end_is_nothing_special(lab: Lab) -> None:
    lab.send(generation=1)
    lab.send(generation=2, quarantined=False)
    lab.controller.message(enforcement_key("worker-1", SUBJECT), None)
    assert lab.controller.refused == {}
    assert lab.controller.counters["tombstone"] == 1


def test_it_ends_by_itself_with_its_expiry(lab: Lab) -> None:
    lab.send(expires_at_ns=lab.clock.wall + 2 * SECOND)
    lab.tick(1900)
    assert cut(lab.maps, lab) == {20, 21}
    lab.tick(100)
    assert lab.maps.process_quarantines == {}
    assert (lab.last()["outcome"], lab.last()["reason"]) == ("ENDED", "expired")


def test_it_is_idle_until_an_order_is_in_force_and_again_after_its_end(lab: Lab) -> None:
    idle = [lab.controller.idle]
    lab.send()
    idle.append(lab.controller.idle)
    lab.tick(601_000)
    idle.append(lab.controller.idle)
    lab.start(with_history=True)  # what the topic holds is still being read
    idle.append(lab.controller.idle)
    assert idle == [True, False, True, False]


def test_sockets_that_come_into_quarantined_hands_later_are_looked_for(lab: Lab) -> None:
    lab.send()
    lab.tick()
    lab.maps.open_sockets = 2
    lab.tick(RESTAMP_NS // 10**6)
    assert lab.controller.counters["late_sockets"] == 2
    lab.send(generation=2, quarantined=False)
    lab.maps.open_sockets = 1
    lab.tick(RESTAMP_NS // 10**6)
    assert lab.controller.counters["late_sockets"] == 2


def test_the_first_refusal_is_reported_once(lab: Lab) -> None:
    lab.send()
    lab.tick()
    assert lab.recorder.outcomes() == ["APPLIED"]
    lab.maps.refuse(SHELL, 4711)
    lab.maps.refuse(SHELL, 4712)
    for _ in range(3):
        lab.tick()
    assert lab.recorder.outcomes() == ["APPLIED", "FIRST_REFUSAL"]
    assert (lab.last()["first_refused_boot_ns"], lab.last()["refused_packets"]) == (4711, 2)


def test_an_expired_order_is_refused_with_notice_when_it_was_issued_lately(lab: Lab) -> None:
    issued = lab.clock.wall
    lab.clock.pass_ms(5000)
    lab.send(issued_at_ns=issued, expires_at_ns=issued + SECOND)
    assert lab.controller.refused == {"expired": 1}
    assert len(lab.recorder.notices) == 1
    assert lab.maps.process_quarantines == {}


def test_an_order_that_expired_before_the_sensor_started_is_only_counted(lab: Lab) -> None:
    lab.send(issued_at_ns=lab.clock.wall - 9 * SECOND, expires_at_ns=lab.clock.wall - SECOND)
    assert lab.controller.refused == {}
    assert lab.recorder.statuses == []
    assert lab.controller.counters["expired_before_start"] == 1


def test_an_expired_order_still_replaces_the_one_before_it(lab: Lab) -> None:
    lab.send(generation=1)
    issued = lab.clock.wall
    lab.clock.pass_ms(5000)
    lab.send(generation=2, issued_at_ns=issued, expires_at_ns=issued + SECOND)
    assert cut(lab.maps, lab) == set()
    assert (lab.last()["outcome"], lab.last()["generation"]) == ("ENDED", 2)


def test_other_boots_are_counted_and_no_more(lab: Lab) -> None:
    lab.send(f"process/{BOOT.replace('6', '7')}/20/1020")
    assert lab.controller.refused == {"other-boot": 1}
    assert (lab.recorder.statuses, lab.recorder.notices) == ([], [])


def test_a_process_that_is_gone_is_said_to_be(lab: Lab) -> None:
    lab.send(f"process/{BOOT}/99/1099")
    assert (lab.last()["outcome"], lab.last()["reason"]) == ("FAILED", "no-such-process")
    lab.tick(60_000)
    assert lab.recorder.outcomes() == ["FAILED"]
    assert lab.controller.in_force == 0


def test_a_flood_of_forgeries_is_counted_but_reported_in_part(lab: Lab) -> None:
    forged = SigningKey.generate().sign(b"x")
    for _ in range(1000):
        lab.controller.message(enforcement_key("worker-1", SUBJECT), forged)
    assert lab.controller.refused == {"unknown-key": 1000}
    assert len(lab.recorder.notices) == len(lab.recorder.statuses) == BURST
    assert lab.controller.counters["refusals_not_reported"] == 1000 - BURST
    lab.clock.pass_ms(1000)
    lab.controller.message(enforcement_key("worker-1", SUBJECT), forged)
    assert len(lab.recorder.notices) == BURST + 1


class TestWorkloads:
    def test_a_workload_is_cut_and_freed(self, lab: Lab) -> None:
        lab.send("workload/pod")
        assert lab.maps.cgroup_quarantines.keys() == {7}
        assert lab.last()["outcome"] == "APPLIED"
        lab.send("workload/pod", generation=2, quarantined=False)
        assert (lab.maps.flags, lab.maps.cgroup_quarantines) == ({}, {})

    def test_a_workload_that_comes_later_is_cut_when_it_comes(self, lab: Lab) -> None:
        lab.send("workload/late")
        assert (lab.last()["outcome"], lab.last()["reason"]) == ("FAILED", "no-such-workload")
        lab.tick()
        lab.workloads.cgroups["late"] = (8,)
        lab.tick()
        assert lab.maps.cgroup_quarantines.keys() == {8}
        assert lab.recorder.outcomes() == ["FAILED", "APPLIED"]

    def test_a_new_cgroup_of_the_workload_is_cut_and_a_gone_one_forgotten(self, lab: Lab) -> None:
        lab.send("workload/pod", quarantined=True)
        lab.workloads.cgroups["pod"] = (8,)
        lab.tick()
        assert lab.maps.cgroup_quarantines.keys() == lab.maps.flags.keys() == {8}

    def test_refusals_of_all_its_entries_are_summed(self, lab: Lab) -> None:
        lab.workloads.cgroups["pod"] = (7, 8)
        lab.send("workload/pod")
        lab.maps.cgroup_quarantines[7] = EnforcementValue(1, 1 << 62, 500, 2, 1)
        lab.maps.cgroup_quarantines[8] = EnforcementValue(1, 1 << 62, 400, 0, 3)
        lab.tick()
        status = lab.last()
        assert status["outcome"] == "FIRST_REFUSAL"
        counted = (status["first_refused_boot_ns"], status["refused_calls"], status["refused_packets"])
        assert counted == (400, 2, 4)


class TestFailures:
    @pytest.mark.parametrize("broken", ["set_quarantine", "mark_process", "processes", "mark_sockets"])
    def test_a_map_that_refuses_is_tried_again_and_reported_once(self, lab: Lab, broken: str) -> None:
        lab.maps.broken.add(broken)
        lab.send()
        for _ in range(5):
            lab.tick()
        assert lab.recorder.outcomes() == ["FAILED"]
        assert lab.last()["reason"] == f"kernel: {broken} refused"
        lab.maps.broken.clear()
        lab.tick(LONGEST_RETRY_NS // 10**6)
        assert lab.recorder.outcomes() == ["FAILED", "APPLIED"]
        assert cut(lab.maps, lab) == {20, 21}

    def test_retries_become_rare_and_end_with_the_order(self, lab: Lab) -> None:
        lab.maps.broken.add("set_quarantine")
        lab.send(expires_at_ns=lab.clock.wall + 100 * SECOND)
        for _ in range(1100):
            lab.tick()
        assert 20 <= lab.controller.counters["not_applied"] <= 30
        assert lab.recorder.outcomes() == ["FAILED", "ENDED"]

    def test_a_lift_that_fails_is_tried_again(self, lab: Lab) -> None:
        lab.send(generation=1)
        lab.maps.broken.add("drop_quarantine")
        lab.send(generation=2, quarantined=False)
        lab.tick()
        lab.maps.broken.clear()
        lab.tick(LONGEST_RETRY_NS // 10**6)
        assert lab.recorder.outcomes() == ["APPLIED", "FAILED", "ENDED"]
        assert cut(lab.maps, lab) == set()

    def test_an_order_that_was_to_end_is_not_carried_out_by_the_retry(self, lab: Lab) -> None:
        lab.send(generation=1)
        issued = lab.clock.wall
        lab.clock.pass_ms(5000)
        lab.maps.broken.add("drop_quarantine")
        lab.send(generation=2, issued_at_ns=issued, expires_at_ns=issued + SECOND)
        lab.maps.broken.clear()
        lab.tick(LONGEST_RETRY_NS // 10**6)
        assert lab.maps.process_quarantines == {}
        assert lab.recorder.outcomes() == ["APPLIED", "FAILED", "ENDED"]

    def test_counters_that_cannot_be_read_now_are_read_later(self, lab: Lab) -> None:
        lab.send("workload/pod")
        lab.send()
        lab.maps.broken.add("processes")
        lab.tick()
        lab.maps.broken.clear()
        lab.maps.refuse(SHELL, 5)
        lab.tick(LONGEST_RETRY_NS // 10**6)
        lab.tick()
        assert lab.recorder.outcomes()[-1] == "FIRST_REFUSAL"


class TestHistory:
    def test_only_the_newest_order_of_a_subject_counts_and_nothing_happens_before_the_end(
        self, lab: Lab
    ) -> None:
        lab.start(with_history=True)
        lab.send(generation=1)
        lab.send(f"process/{BOOT}/10/1010", generation=4)
        lab.send(generation=2, quarantined=False)
        assert lab.maps.process_quarantines == {}
        lab.tick()
        assert lab.recorder.statuses == []
        lab.controller.history_complete()
        assert lab.maps.process_quarantines.keys() == {ProcessKey(tgid=10, start_ns=1010)}

    def test_a_new_sensor_takes_over_what_the_old_one_left(self, lab: Lab) -> None:
        message = lab.order(generation=9)
        lab.controller.message(*message)
        lab.maps.refuse(SHELL, 33)
        lab.start(with_history=True)
        lab.controller.message(*message)
        lab.controller.history_complete()
        assert lab.maps.process_quarantines[SHELL].first_refused_ns == 33
        lab.tick()
        assert lab.recorder.outcomes() == ["APPLIED", "FIRST_REFUSAL"]

    def test_a_lift_while_the_sensor_was_away_frees_what_the_old_one_cut(self, lab: Lab) -> None:
        lab.send(generation=1)
        lab.send("workload/pod", generation=1)
        lab.start(with_history=True)
        lab.send(generation=2, quarantined=False)
        lab.send("workload/pod", generation=2, quarantined=False)
        lab.controller.history_complete()
        assert cut(lab.maps, lab) == set()
        assert (lab.maps.process_quarantines, lab.maps.cgroup_quarantines, lab.maps.flags) == ({}, {}, {})
        assert lab.recorder.outcomes() == ["ENDED", "ENDED"]

    def test_what_is_gone_from_the_topic_ends_with_its_own_expiry_not_before(self, lab: Lab) -> None:
        lab.send(expires_at_ns=lab.clock.wall + 30 * SECOND)
        lab.send("workload/pod", expires_at_ns=lab.clock.wall + 30 * SECOND)
        lab.start()
        lab.tick(20_000)
        assert cut(lab.maps, lab) == {20, 21}
        lab.tick(15_000)
        assert (lab.maps.process_quarantines, lab.maps.cgroup_quarantines, lab.maps.flags) == ({}, {}, {})
        assert all(process.quarantine_root is None for process in lab.maps.table.values())

    def test_the_replays_a_compacted_topic_holds_are_no_alarm(self, lab: Lab) -> None:
        lab.start(with_history=True)
        lab.send(generation=2)
        lab.send(generation=1)
        lab.controller.history_complete()
        assert lab.controller.refused == {"replayed": 1}
        assert lab.recorder.notices == []
        assert lab.last()["generation"] == 2

    def test_a_forgery_in_the_history_is_an_alarm(self, lab: Lab) -> None:
        lab.start(with_history=True)
        lab.controller.message(enforcement_key("worker-1", SUBJECT), SigningKey.generate().sign(b"x"))
        lab.controller.history_complete()
        assert len(lab.recorder.notices) == 1

    def test_an_unsigned_tombstone_in_the_history_does_not_hide_the_order_before_it(self, lab: Lab) -> None:
        lab.start(with_history=True)
        lab.send()
        lab.controller.message(enforcement_key("worker-1", SUBJECT), None)
        lab.controller.history_complete()
        assert cut(lab.maps, lab) == {20, 21}


class TestLedger:
    def test_a_full_ledger_refuses_rather_than_forgets(
        self, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lab.controller, "_ledger", Ledger(max_subjects=1))
        lab.send(expires_at_ns=lab.clock.wall + SECOND)
        lab.send("workload/pod")
        assert lab.controller.refused == {"too-many-subjects": 1}
        lab.clock.pass_ms(1000)
        lab.send("workload/pod")
        assert lab.last()["outcome"] == "APPLIED"


generations = st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=8)


@settings(max_examples=100, deadline=None)
@given(orders=generations, split=st.integers(0, 8))
def test_reading_the_topic_again_gives_the_same_kernel(orders: list[tuple[int, bool]], split: int) -> None:
    from .conftest import Lab  # noqa: PLC0415 - hypothesis needs a new lab for each example

    # A generation stands for one content: the first that was sent with it.
    content: dict[int, bool] = {}
    messages = [(generation, content.setdefault(generation, wanted)) for generation, wanted in orders]
    live = Lab()
    for generation, wanted in messages:
        live.send(generation=generation, quarantined=wanted)
    again = Lab()
    again.start(with_history=True)
    for generation, wanted in messages[:split]:
        again.send(generation=generation, quarantined=wanted)
    again.controller.history_complete()
    for generation, wanted in messages[split:]:
        again.send(generation=generation, quarantined=wanted)
    assert cut(live.maps, live) == cut(again.maps, again) == ({20, 21} if content[max(content)] else set())
