# SPDX-License-Identifier: Apache-2.0
"""A tree is ended, or nobody of it; and never somebody else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sensor.enforce.controller import MAX_KILL_ROUNDS
from sensor.enforce.signals import Facts

from .conftest import SENSOR, subject_of

if TYPE_CHECKING:
    from .conftest import Lab

POD_CGROUP = "/kubepods.slice/kubepods-pod0b9c1c52_7a0e_4c57_8a59_3d0c5be8f1aa.slice"


def kill(lab: Lab, tgid: int = 20, **fields: Any) -> None:
    lab.send(subject_of(tgid), killed=True, **fields)


def test_a_tree_is_ended_and_acknowledged_and_nobody_else(lab: Lab) -> None:
    kill(lab)
    assert sorted(lab.signals.sent) == [20, 21]
    assert lab.maps.table.keys() == {1, 10, SENSOR}
    assert (lab.last()["outcome"], lab.last()["killed"], lab.last()["kill_refused"]) == ("APPLIED", 2, "")
    for _ in range(3):
        lab.tick()
    assert lab.recorder.outcomes() == ["APPLIED"]
    assert lab.controller.counters["killed"] == 2


def test_a_quarantine_alone_ends_nobody(lab: Lab) -> None:
    lab.send()
    lab.tick()
    assert lab.signals.sent == []


@pytest.mark.parametrize(
    ("tgid", "fields", "reason"),
    [
        (1, {}, "process 1 is the node's own"),
        (SENSOR, {}, "process 90 is the sensor"),
        (10, {}, "process 10 is an ancestor of the sensor"),
        (20, {"kernel_thread": True, "executable": ""}, "process 20 is a kernel thread"),
        (20, {"executable": "/usr/sbin/sshd"}, "/usr/sbin/sshd (process 20) is on the list"),
        (20, {"cgroup": "/system.slice/rescue.service"}, "that break-glass entries name"),
        (20, {"unreadable": "Permission denied"}, "cannot be looked at: Permission denied"),
    ],
)
def test_who_is_protected_is_refused_and_what_was_in_force_stays(
    lab: Lab, tgid: int, fields: dict[str, Any], reason: str
) -> None:
    lab.send(subject_of(tgid), generation=1)
    if fields:
        lab.signals.set(tgid, **fields)
    kill(lab, tgid, generation=2)
    status = lab.last()
    assert status["outcome"] == "REFUSED"
    assert status["reason"].startswith("protected: ")
    assert reason in status["reason"]
    assert lab.signals.sent == []
    assert lab.maps.is_cut(tgid, lab.clock.boot)
    assert lab.controller.in_force == 1


def test_one_protected_process_in_the_tree_and_nobody_is_ended(lab: Lab) -> None:
    lab.signals.set(21, "/usr/bin/containerd-shim-runc-v2")
    kill(lab)
    assert lab.signals.sent == []
    assert lab.last()["kill_refused"].startswith("protected: /usr/bin/containerd-shim-runc-v2 (process 21)")
    assert lab.maps.cut_processes(lab.clock.boot) == {20, 21}
    lab.tick()
    assert lab.signals.sent == []


def test_the_name_of_a_protected_program_protects_nobody_inside_of_a_container(lab: Lab) -> None:
    lab.signals.set(20, "/usr/sbin/sshd", POD_CGROUP)
    kill(lab)
    assert sorted(lab.signals.sent) == [20, 21]


def test_a_tgid_that_was_given_to_somebody_else_is_not_ended(lab: Lab) -> None:
    lab.signals.by_tgid[21] = Facts(21, 1, 4711, kernel_thread=False, executable="/bin/x", cgroup="/")
    kill(lab)
    assert lab.signals.sent == [20]


def test_who_becomes_somebody_else_in_the_last_moment_is_not_ended(lab: Lab) -> None:
    def replaced(tgid: int) -> None:
        lab.signals.set(tgid, start_ticks=4711)

    lab.signals.on_kill = replaced
    kill(lab)
    assert lab.signals.sent == []


def test_who_is_born_meanwhile_is_ended_in_the_next_round(lab: Lab) -> None:
    def fork(_: int) -> None:
        lab.signals.on_kill = lambda _: None
        lab.maps.spawn(22, 21)

    lab.signals.on_kill = fork
    kill(lab)
    lab.tick()
    assert sorted(lab.signals.sent) == [20, 21, 22]
    assert (lab.recorder.outcomes(), lab.last()["killed"]) == (["APPLIED", "APPLIED"], 3)


def test_who_does_not_die_is_told_once_and_not_for_ever(lab: Lab) -> None:
    lab.signals.stuck = {21}
    kill(lab)
    for _ in range(MAX_KILL_ROUNDS + 10):
        lab.tick()
    assert lab.signals.sent.count(21) == MAX_KILL_ROUNDS + 1
    assert lab.recorder.outcomes() == ["APPLIED", "APPLIED"]
    assert lab.last()["kill_refused"].startswith("incomplete: 1 processes are left")
    assert lab.last()["killed"] == 2


def test_what_the_system_does_not_permit_is_told(lab: Lab) -> None:
    lab.signals.denied = {20}
    kill(lab)
    assert (lab.last()["killed"], lab.last()["kill_refused"]) == (
        1, "not-permitted: process 20: Operation not permitted",
    )  # fmt: skip


def test_a_tree_that_is_gone_is_as_wanted(lab: Lab) -> None:
    lab.maps.exit(21)
    lab.maps.exit(20)
    kill(lab)
    assert (lab.last()["outcome"], lab.last()["killed"]) == ("APPLIED", 0)
    assert lab.last()["kill_refused"].startswith("gone")
    lab.tick()


def test_an_order_that_has_expired_ends_nobody(lab: Lab) -> None:
    kill(lab, expires_at_ns=lab.clock.wall, issued_at_ns=lab.clock.wall - 1)
    assert lab.signals.sent == []


def test_the_same_order_once_more_ends_nobody_again(lab: Lab) -> None:
    message = lab.order(subject_of(20), killed=True)
    lab.signals.stuck = {20, 21}
    for _ in range(3):
        lab.controller.message(*message)
    assert lab.signals.sent == [20, 21]


@pytest.mark.parametrize(
    "fields",
    [
        {"killed": True, "quarantined": False},
        {"killed": True, "subject": "workload/pod"},
        {"allowed": [{"network": "10.0.0.1/32", "port": 53, "protocol": 17, "incoming": False}]},
        *(
            {"subject": "workload/pod", "allowed": [{"protocol": 6, "incoming": True, **wrong}]}
            for wrong in (
                {"network": "10.0.0.0/33", "port": 1}, {"network": "10.0.0.0", "port": 1},
                {"network": "10.0.0.0/8", "port": 0}, {"network": "x/8", "port": 1},
                {"network": "10.0.0.0/8", "port": 1, "protocol": 1},
            )
        ),
    ],
    ids=str,
)  # fmt: skip
def test_an_order_that_makes_no_sense_is_malformed(lab: Lab, fields: dict[str, Any]) -> None:
    lab.send(fields.pop("subject", subject_of(20)), **fields)
    assert lab.last()["outcome"] == "REFUSED"
    assert lab.last()["reason"].startswith("malformed: ")
    assert (lab.signals.sent, lab.maps.flags) == ([], {})
