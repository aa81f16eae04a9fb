# SPDX-License-Identifier: Apache-2.0
"""Signed orders about profiles, through the sensor's own code into the real maps, and what came of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from schemas.codec import encode
from schemas.signing import SigningKey
from schemas.subject import enforcement_key
from sensor.policy.reconcile import SETTLING_NS
from sensor.policy.remembered import Answer, RememberedAnswers
from tests.support.kernel_lab import Cgroup
from tests.support.profile_lab import network, traffic
from tests.support.profile_node import NODE, RESOLVER, Node, Pod

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.kernel_watch import Watch

ELSEWHERE = "192.0.2.1"


@pytest.fixture(autouse=True)
def kubepods(watch: Watch) -> Iterator[None]:
    path = watch.cgroup.path / "kubepods"
    path.mkdir()
    yield
    Cgroup(path).remove()
    for slot, _ in list(watch.kernel.policy.policy_slots()):
        watch.kernel.policy.set_policy_slot(slot, 0)


def allow(*cidrs: str) -> dict[str, Any]:
    return {"default": network(traffic(*cidrs)), "mode": "ENFORCE"}


def test_a_profile_is_applied_changed_and_removed(watch: Watch) -> None:
    pod = Pod(watch)
    pod.make()
    node = Node(watch)
    assert pod.connects_to(ELSEWHERE) == "None"
    status = node.profile(5, pod.uid, **allow("198.51.100.0/24"))
    assert (status["outcome"], status["profile_generation"], status["workloads"]) == ("APPLIED", 5, 1)
    assert status["applied_boot_ns"] > 0
    assert pod.connects_to(ELSEWHERE) == "EPERM"
    assert node.profile(6, pod.uid, **allow(f"{ELSEWHERE}/32"))["outcome"] == "APPLIED"
    assert pod.connects_to(ELSEWHERE) == "None"
    assert pod.connects_to("198.51.100.1") == "EPERM"
    assert node.profile(7)["outcome"] == "ENDED"
    assert pod.connects_to("198.51.100.1") == "None"


def test_an_older_order_a_tombstone_and_a_stranger_s_change_nothing(watch: Watch) -> None:
    pod = Pod(watch)
    pod.make()
    node = Node(watch)
    node.profile(5, pod.uid, **allow("198.51.100.0/24"))
    assert node.profile(4)["outcome"] == "REFUSED"
    node.controller.message(enforcement_key(NODE, "profile/shop/test"), None)
    assert node.recorder.statuses[-1]["reason"].startswith("unsigned")
    record = {
        "node": NODE, "subject": "profile/shop/test", "generation": 9, "issued_at_ns": 1, "removed": True,
        "profile": None, "workloads": [],
    }  # fmt: skip
    node.controller.message(
        enforcement_key(NODE, "profile/shop/test"), SigningKey.generate().sign(encode("ProfileOrder", record))
    )
    assert node.recorder.statuses[-1]["reason"].startswith("unknown-key")
    assert pod.connects_to(ELSEWHERE) == "EPERM"


def test_a_refused_profile_leaves_the_one_in_force(watch: Watch) -> None:
    pod = Pod(watch)
    pod.make()
    node = Node(watch)
    node.profile(5, pod.uid, **allow("198.51.100.0/24"))
    wide = [f"10.{number >> 8 & 255}.{number & 255}.{number >> 16}/32" for number in range(250_001)]
    status = node.profile(6, pod.uid, **allow(*wide))
    assert status["outcome"] == "REFUSED"
    assert "250000" in status["reason"]
    assert pod.connects_to(ELSEWHERE) == "EPERM"
    assert pod.connects_to("198.51.100.1") == "None"


def test_a_pod_that_comes_later_has_its_profile_before_its_first_process(watch: Watch) -> None:
    pod = Pod(watch)
    node = Node(watch)
    status = node.profile(5, pod.uid, **allow("198.51.100.0/24"))
    assert (status["outcome"], status["workloads"]) == ("APPLIED", 1)
    pod.make()  # and nobody in user space looks
    assert pod.connects_to(ELSEWHERE) == "EPERM"
    assert pod.connects_to("198.51.100.1") == "None"


def test_an_unknown_pod_is_denied_until_somebody_speaks_of_it(watch: Watch) -> None:
    pod = Pod(watch)
    node = Node(watch, mode="deny")
    pod.make()
    assert pod.connects_to(ELSEWHERE) == "EPERM"
    node.table.created(pod.cgroup.id, f"/{pod.cgroup.path.relative_to(watch.cgroup.path.parent)}")
    node.controller.profiles.tick()
    assert pod.connects_to(ELSEWHERE) == "EPERM"
    node.send("NodeWorkloads", {
        "node": NODE, "subject": f"workloads/{NODE}", "generation": 3, "issued_at_ns": 1,
        "workloads": [pod.uid],
    })  # fmt: skip
    assert pod.connects_to(ELSEWHERE) == "None"


def test_a_new_sensor_takes_over_without_a_word(watch: Watch) -> None:
    pod = Pod(watch)
    pod.make()
    Node(watch).profile(5, pod.uid, **allow("198.51.100.0/24"))
    slot = watch.kernel.state.policy_slot_of(pod.cgroup.id)
    tag = watch.kernel.policy.policy_slot(slot)
    again = Node(watch)
    assert pod.connects_to(ELSEWHERE) == "EPERM"
    again.profile(5, pod.uid, **allow("198.51.100.0/24"))
    assert watch.kernel.policy.policy_slot(slot) == tag  # nothing was built again
    assert pod.connects_to(ELSEWHERE) == "EPERM"


def test_an_expired_profile_ends_by_itself(watch: Watch) -> None:
    pod = Pod(watch)
    pod.make()
    node = Node(watch)
    node.profile(5, pod.uid, expires_at_ns=time.time_ns() + 10**9, **allow("198.51.100.0/24"))
    assert pod.connects_to(ELSEWHERE) == "EPERM"
    time.sleep(1.1)
    node.controller.profiles.tick()
    assert pod.connects_to(ELSEWHERE) == "None"


def test_the_first_profile_of_a_running_workload_knows_what_was_resolved_before(watch: Watch) -> None:
    pod = Pod(watch)
    pod.make()
    remembered = RememberedAnswers()
    node = Node(watch, remembered=remembered)
    for number, (name, address, server) in enumerate(
        (
            ("api.example.com", ELSEWHERE, RESOLVER),
            ("other.example", "192.0.2.2", RESOLVER),
            ("api.example.com", "192.0.2.3", "198.51.100.53"),  # said by somebody nobody believes
        )
    ):
        remembered.asked(1, number, name)
        remembered.answered(1, number, Answer(pod.cgroup.id, server, name, (address,)))
    # Answers nobody asked for are not remembered at all.
    remembered.answered(2, 9, Answer(pod.cgroup.id, RESOLVER, "api.example.com", ("192.0.2.4",)))
    rules: dict[str, Any] = {
        "default": network(traffic(names=["api.example.com"])),
        "mode": "ENFORCE",
    }
    assert node.profile(5, pod.uid, **rules)["outcome"] == "APPLIED"
    time.sleep(SETTLING_NS / 1e9)
    assert pod.connects_to(ELSEWHERE) == "None"
    for stranger in ("192.0.2.2", "192.0.2.3", "192.0.2.4"):
        assert pod.connects_to(stranger) == "EPERM"


def test_a_running_workload_settles_and_a_new_one_does_not(watch: Watch) -> None:
    running, coming = Pod(watch), Pod(watch)
    running.make()
    node = Node(watch)
    rules: dict[str, Any] = {
        "default": network(traffic(names=["api.example.com"])),
        "mode": "ENFORCE",
    }
    node.profile(5, running.uid, coming.uid, **rules)
    assert running.connects_to(ELSEWHERE) == "None"
    time.sleep(SETTLING_NS / 1e9)
    assert running.connects_to(ELSEWHERE) == "EPERM"
    coming.make()
    assert coming.connects_to(ELSEWHERE) == "EPERM"
