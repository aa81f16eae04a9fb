# SPDX-License-Identifier: Apache-2.0
"""Signed orders about profiles, through the sensor's own code into the real maps, and what came of them."""

from __future__ import annotations

import copy
import json
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from schemas.codec import encode
from schemas.documents import from_document
from schemas.signing import SigningKey, VerifyingKeys
from schemas.subject import enforcement_key
from sensor.enforce.apply import Applier
from sensor.enforce.clock import SystemClock
from sensor.enforce.controller import Controller
from sensor.enforce.profiles import ProfileOrders
from sensor.enforce.status import Reporter
from sensor.enforce.verify import Verifier
from sensor.policy.layout import SLOT_UNKNOWN
from sensor.policy.node import NodePolicies, NodeSettings
from sensor.policy.reconcile import SETTLING_NS
from sensor.policy.remembered import Answer, RememberedAnswers
from sensor.policy.safety import Protected
from sensor.workload.table import WorkloadTable
from tests.support.fake_enforcement import FakeWorkloads, Recorder
from tests.support.kernel_lab import Cgroup
from tests.support.kernel_watch import Actor, Watch
from tests.support.profile_lab import network, traffic

if TYPE_CHECKING:
    from collections.abc import Iterator

NODE, BOOT = "node", "6f1d0c52-4a3e-4b5e-9a53-0c7de8a4b1f2"
KEY = SigningKey.generate()
ELSEWHERE, RESOLVER = "192.0.2.1", "192.0.2.53"
PROFILE = from_document(
    "SecurityProfile",
    json.loads((Path(__file__).parents[2] / "schemas/samples/SecurityProfile/valid/pod.json").read_text()),
)


class Node:
    """A sensor's profiles on the real maps; messages come by call instead of by Kafka."""

    def __init__(
        self, watch: Watch, mode: str = "allow", remembered: RememberedAnswers | None = None
    ) -> None:
        self.table = WorkloadTable(NODE, watch.kernel.state)
        self.table.walk(watch.cgroup.path)
        self.table.guard(SLOT_UNKNOWN)
        settings = NodeSettings(NODE, mode, (RESOLVER,), 30 * 10**9, 60 * 10**9, Protected())
        self.policies = NodePolicies(
            settings, watch.kernel.policy, self.table, SystemClock(), remembered=remembered
        )
        self.policies.start()
        self.recorder = Recorder()
        identity = {"node": NODE, "boot_id": BOOT}
        self.counters: dict[str, int] = {}
        orders = ProfileOrders(self.policies, self.recorder, identity, SystemClock(), self.counters)
        self.controller = Controller(
            Verifier(VerifyingKeys.from_pems([KEY.public_pem()]), NODE, BOOT, 1),
            Applier(watch.kernel.state, FakeWorkloads()),
            Reporter(NODE, BOOT),
            self.recorder,
            self.recorder,
            SystemClock(),
            profiles=orders,
        )
        self.controller.history_complete()

    def send(self, record_name: str, record: dict[str, Any]) -> dict[str, Any]:
        """Send one signed order and have it carried out; the last status."""
        key = enforcement_key(NODE, record["subject"])
        self.controller.message(key, KEY.sign(encode(record_name, record)))
        self.controller.profiles.carry_out()
        return self.recorder.statuses[-1] if self.recorder.statuses else {}

    def profile(self, generation: int, *pods: str, name: str = "test", **fields: Any) -> dict[str, Any]:
        """Order a profile for pods; none of its fields given: its removal."""
        profile = None
        if fields:
            profile = copy.deepcopy(PROFILE) | {
                "namespace": "shop", "name": name, "generation": generation, "processes": [],
                "arp_spoofing": False, **fields,
            }  # fmt: skip
        return self.send("ProfileOrder", {
            "node": NODE, "subject": f"profile/shop/{name}", "generation": generation,
            "issued_at_ns": time.time_ns(), "removed": profile is None, "profile": profile,
            "workloads": sorted(pods),
        })  # fmt: skip


class Pod:
    """A pod's cgroup, named as the kubelet names it."""

    def __init__(self, watch: Watch) -> None:
        self.uid = str(uuid.uuid4())
        self.cgroup = Cgroup(watch.cgroup.path / "kubepods" / f"pod{self.uid}")

    def make(self) -> None:
        self.cgroup.path.mkdir()

    def connects_to(self, address: str) -> str:
        """EPERM, or anything else."""
        with Actor(self.cgroup) as actor:
            return str(actor.connect("a", address, 9, kind=2))


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
    node.controller.profiles.tick()
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
