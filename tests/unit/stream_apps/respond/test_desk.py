# SPDX-License-Identifier: Apache-2.0
"""What waits, what becomes of it, and how each action's story is told."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from schemas.codec import decode_as, encode
from schemas.subject import ProcessSubject
from stream_apps.assembly import build_response
from stream_apps.correlate.pods import PodTable
from stream_apps.respond.undo import difference
from stream_apps.respond.waiting import Waiting, WaitingRoom
from tests.support.batches import BOOT_ID, SECOND, pod_record
from tests.support.stream import config
from tests.unit.stream_apps.test_respond import NOW, SUBJECT, order, threat

if TYPE_CHECKING:
    from stream_apps.respond.desk import Produced, ResponseDesk
    from stream_apps.respond.threat import Threat

BOOT_OFFSET_NS = NOW - 10**15
KILL = {"name": "kill", "actions": [{"action": "kill", "ttl_s": 3600}], "disarmer": {"new_for_s": 0}}


def desk(**respond: Any) -> ResponseDesk:
    pods = PodTable()
    pods.put(pod_record())
    return build_response(config(respond=respond), pods)


def decide(on: ResponseDesk, at_ns: int = NOW, about: Threat | None = None) -> Produced:
    about = about or threat(observed_boot_ns=5)
    return on.issued(on.respond(about, at_ns), about, (BOOT_ID, BOOT_OFFSET_NS), at_ns)


def told(events: list[dict[str, Any]]) -> list[str]:
    for each in events:
        assert decode_as("Alert", encode("Alert", each)) == each
    return [each["audit"]["status"] if each["audit"] else each["title"] for each in events]


def status(record: dict[str, Any], outcome: str, **fields: Any) -> dict[str, Any]:
    same = ("node", "subject", "generation", "alert_id", "evidence_boot_ns", "issued_at_ns")
    return {
        **{name: record[name] for name in same}, "boot_id": BOOT_ID, "outcome": outcome, "reason": "",
        "processes": 1, "sockets": 0, "applied_boot_ns": 30, "first_refused_boot_ns": 0, "refused_calls": 0,
        "refused_packets": 0, "reported_at_ns": NOW, "killed": 0, "kill_refused": "", **fields,
    }  # fmt: skip


def test_the_four_times_are_told_as_they_become_known() -> None:
    on = desk()
    (record,) = decide(on).enforcements
    on.on_status(status(record, "APPLIED"))
    on.on_status(status(record, "APPLIED"))
    on.on_status(status(record, "FIRST_REFUSAL", first_refused_boot_ns=44))
    first, second = on.tick(NOW).events
    assert told([first, second]) == ["performed", "performed"]
    times = ("first_seen_boot_ns", "decided_boot_ns", "map_written_boot_ns", "first_refused_boot_ns")
    assert [first["audit"][name] for name in times] == [5, 10**15, 30, 0]
    assert [second["audit"][name] for name in times] == [5, 10**15, 30, 44]
    assert first["id"] != second["id"]
    assert (first["audit"]["alert_id"], first["audit"]["policy"]) == ("a" * 32, "nsp.rce-egress")
    assert first["workload"]["pod"] == "shop-6c9f7d5b8-x2v5q"


def test_a_kill_goes_out_when_nothing_spoke_against_it() -> None:
    on = desk(policies=[KILL])
    produced = decide(on)
    assert told(produced.events) == ["queued"]
    assert [each["killed"] for each in produced.enforcements] == [False]
    assert on.tick(NOW + 4 * SECOND).enforcements == []
    due = on.tick(NOW + 5 * SECOND)
    (kill,) = due.enforcements
    assert (kill["killed"], kill["quarantined"]) == (True, True)
    assert kill["generation"] > produced.enforcements[0]["generation"]
    assert [each["state"] for each in due.waiting] == ["DONE"]
    assert on.tick(NOW + 6 * SECOND).enforcements == []
    on.on_status(status(kill, "APPLIED", killed=2))
    events = on.tick(NOW + 7 * SECOND).events
    assert told(events) == ["performed"]
    assert events[0]["audit"]["processes_ended"] == 2


def test_what_the_sensor_did_not_do_is_partial_or_refused() -> None:
    for fields, expected in (
        ({"killed": 2, "kill_refused": "incomplete: 1 is left"}, "partial"),
        ({"killed": 0, "kill_refused": "protected: sshd"}, "refused"),
        ({"outcome": "REFUSED", "reason": "expired: too late"}, "refused"),
        ({"outcome": "FAILED", "reason": "no-such-process"}, "refused"),
        ({"outcome": "ENDED", "reason": "expired"}, "expired"),
    ):
        on = desk(policies=[KILL], kill_after_s=0)
        decide(on)
        (kill,) = on.tick(NOW).enforcements
        on.on_status(status(kill, "APPLIED") | fields)
        assert told(on.tick(NOW).events) == [expected]


def test_a_kill_waits_for_the_disarmer_and_is_not_done_when_it_objects() -> None:
    on = desk(policies=[{**KILL, "disarmer": {"max_trees": 2, "new_for_s": 600}}])
    for number in range(3):
        root = ProcessSubject(BOOT_ID, 100 + number, 9)
        produced = decide(on, about=threat(root=root, alert_id=f"{number}" * 32))
    assert told(produced.events) == ["dismantled"]
    due = on.tick(NOW + 5 * SECOND)
    assert due.enforcements == []
    assert [each["state"] for each in due.waiting] == ["DROPPED", "DROPPED"]
    assert told(due.events) == ["dismantled", "dismantled", "Response of nsp.rce-egress dismantled"]
    assert due.events[-1]["severity"] == "HIGH"


def test_a_disarmer_is_loud_when_it_disarms_and_when_it_arms_again() -> None:
    on = desk(fleet={"max_trees": 1})
    for number in range(2):
        decide(on, about=threat(root=ProcessSubject(BOOT_ID, 100 + number, 9)))
    assert told(on.tick(NOW).events) == ["Response of the fleet disarmed"]
    assert told(on.tick(NOW + 60 * SECOND).events) == ["Response of the fleet armed"]
    assert on.metrics()["respond", "rules_disarmed_now"] == 0


def test_a_person_who_released_the_tree_meanwhile_has_the_last_word() -> None:
    on = desk(policies=[KILL])
    (cut,) = decide(on).enforcements
    on.on_status(status(cut, "APPLIED"))
    lift = order(SUBJECT, NOW + SECOND, 600, "ops: a false alarm", quarantined=False)
    on.on_enforcement(lift)
    on.on_status(status(lift, "ENDED", reason="lifted"))
    due = on.tick(NOW + 5 * SECOND)
    assert due.enforcements == []
    refused, performed, undone = due.events
    assert told(due.events) == ["refused", "performed", "undone"]
    assert "a person's order stands: ops: a false alarm" in refused["description"]
    assert performed["audit"]["by"] == ""
    assert undone["audit"]["reopened"] == [f"the whole network of {SUBJECT}"]
    assert undone["audit"]["by"] == "ops: a false alarm"


def test_a_response_older_than_its_time_is_recorded_and_not_done() -> None:
    produced = decide(desk(), at_ns=NOW + 3600 * SECOND)
    assert (told(produced.events), produced.enforcements) == (["expired"], [])


def test_what_no_person_decides_in_time_is_given_up() -> None:
    approve = {"name": "ask", "approval": ["quarantine-process"]}
    on = desk(policies=[approve], approval_for_s=60)
    produced = decide(on)
    assert (told(produced.events), produced.enforcements) == (["queued"], [])
    assert [each["state"] for each in produced.waiting] == ["PENDING"]
    due = on.tick(NOW + 60 * SECOND)
    assert (told(due.events), [each["state"] for each in due.waiting]) == (["expired"], ["DROPPED"])


def test_an_approved_response_is_told_with_who_approved_it() -> None:
    on = desk(policies=[{"name": "ask", "approval": ["quarantine-process"]}])
    (pending,) = decide(on).waiting
    approved = replace(Waiting.of(pending), state="APPROVED", decided_by="ops")
    on.on_waiting(approved)
    ordered = {**order(SUBJECT, NOW + SECOND, 600, "approved"), "alert_id": approved.alert_id}
    on.on_enforcement(ordered)
    on.on_status(status(ordered, "APPLIED"))
    (event,) = on.tick(NOW + 2 * SECOND).events
    assert told([event]) == ["performed"]
    assert (event["audit"]["by"], event["audit"]["policy"]) == ("ops", "ask")
    assert on.metrics()["respond", "waiting_now"] == 0


def test_a_rejection_is_told_and_counts_until_it_is_over() -> None:
    on = desk(policies=[{"name": "ask", "approval": ["quarantine-process"]}])
    (pending,) = decide(on).waiting
    on.on_waiting(replace(Waiting.of(pending), state="REJECTED", decided_by="ops", reason="ours"))
    assert told(on.tick(NOW).events) == ["refused"]
    assert told(decide(on).events) == ["refused"]
    assert on.tick(NOW + 3600 * SECOND).events == []


def test_after_a_restart_what_waited_is_taken_up_by_the_process_that_has_the_node() -> None:
    (queued,) = decide(desk(policies=[KILL])).waiting
    record = decode_as("PendingResponse", encode("PendingResponse", queued))
    assert Waiting.of(record).record() == queued
    other, mine = desk(policies=[KILL]), desk(policies=[KILL])
    other.takes(lambda node: node != "worker-1")
    for each in (other, mine):
        each.on_enforcement({**order(SUBJECT, NOW - SECOND, 3600, "cut"), "alert_id": "a" * 32})
        each.on_waiting(Waiting.of(record))
    assert other.tick(NOW + 60 * SECOND).enforcements == []
    assert [each["killed"] for each in mine.tick(NOW + 60 * SECOND).enforcements] == [True]


def test_only_the_process_that_has_the_node_tells_the_story() -> None:
    on = desk()
    (record,) = decide(on).enforcements
    on.takes(lambda node: node != "worker-1")
    on.on_status(status(record, "APPLIED"))
    assert on.tick(NOW).events == []


def test_reading_back_old_batches_lets_nothing_wait_again() -> None:
    on = desk(policies=[KILL])
    about = threat()
    produced = on.issued(on.respond(about, NOW), about, (BOOT_ID, 0), NOW, replaying=True)
    assert produced.waiting == []
    assert on.tick(NOW + 3600 * SECOND).waiting == []


def test_the_room_is_bounded_and_says_so() -> None:
    (queued,) = decide(desk(policies=[KILL])).waiting
    room = WaitingRoom(max_waiting=1)
    first = Waiting.of(queued)
    assert room.put(first)
    assert not room.put(replace(first, id="other"))
    assert (len(room), room.refused) == (1, 1)


def test_the_difference_says_what_is_open_again_and_what_is_closed() -> None:
    before = order("workload/x", NOW, 60, "cut")
    before["blocked_destinations"] = [{"address": "203.0.113.9", "port": 443, "protocol": 6}]
    before["allowed"] = [{"network": "10.96.0.10/32", "port": 53, "protocol": 17, "incoming": False}]
    after = order("workload/x", NOW, 60, "lift", quarantined=False)
    assert difference(before, after) == [
        "+ the whole network of workload/x, but for udp port 53 out to 10.96.0.10/32",
        "+ 203.0.113.9 tcp port 443 for workload/x",
    ]
    assert difference(None, before)[1] == "- 203.0.113.9 tcp port 443 for workload/x"
