# SPDX-License-Identifier: Apache-2.0
"""Who has which slot and policy, and which cgroups have it at birth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sensor.policy import layout
from sensor.policy.errors import PolicyRefused
from sensor.policy.limits import QUARANTINE_NS
from sensor.policy.profile import Program, compile_profile
from sensor.policy.slots import Slots
from sensor.policy.workloads import Plan, Profiles
from sensor.workload.paths import identify
from sensor.workload.table import Workload
from tests.support.profiles import network, profile, rules, service

if TYPE_CHECKING:
    from sensor.policy.policy import Policy

UID = "6f3c1d2e-0000-4000-8000-000000000001"
OTHER = "6f3c1d2e-0000-4000-8000-000000000002"
WALL, BOOT = 1000, 50
POD_PATH = f"/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice"


def workload(path: str, subject: str) -> Workload:
    identity = identify(path)
    return Workload(subject, identity.kind, 1, path, 1, identity.pod_uid, None, identity.unit)


POD = workload(POD_PATH, UID)
NGINX = workload("/system.slice/nginx.service", "host/n1/nginx.service")
SSH = workload("/system.slice/ssh.service", "host/n1/ssh.service")


@pytest.fixture
def profiles() -> Profiles:
    return Profiles("n1", "deny")


def host(name: str = "host", **changed: Any) -> dict[str, Any]:
    return profile(name, namespace="host", scope="NODE", **changed)


def plan(profiles: Profiles, *workloads: Workload, wall: int = WALL, boot: int = BOOT) -> Plan:
    return profiles.plan(workloads, wall, boot)


def policy_of(made: Plan, subject: str) -> Policy | None:
    return made.policies[made.slots[subject]]


def test_a_pod_nobody_has_spoken_of_is_unknown_until_somebody_does(profiles: Profiles) -> None:
    unknown = policy_of(plan(profiles, POD), UID)
    assert unknown
    assert unknown.flags == layout.POLICY_UNKNOWN_WORKLOAD
    profiles.select(UID, ())
    assert policy_of(plan(profiles, POD), UID) is None


def test_a_pod_keeps_its_slot_for_life(profiles: Profiles) -> None:
    before = plan(profiles, POD).slots[UID]
    profiles.put(compile_profile(profile()))
    profiles.select(UID, ["default/web"])
    after = plan(profiles, POD)
    assert after.slots[UID] == before
    policy = policy_of(after, UID)
    assert policy
    assert policy.default.mode == layout.MODE_ENFORCE


def test_a_pod_that_is_to_come_has_its_slot_under_every_name_its_cgroup_can_have(profiles: Profiles) -> None:
    profiles.put(compile_profile(profile()))
    profiles.select(UID, ["default/web"])
    made = plan(profiles)
    written = UID.replace("-", "_")
    assert made.expected == dict.fromkeys(made.expected, made.slots[UID])
    assert {f"pod{UID}", f"kubepods-pod{written}.slice", f"kubepods-burstable-pod{written}.slice"} <= set(
        made.expected
    )
    for name in made.expected:
        assert identify(f"/kubepods/{name}").pod_uid == UID
    assert plan(profiles, POD).expected == {}


def test_a_profile_that_comes_after_its_selection_takes_force_then(profiles: Profiles) -> None:
    profiles.select(UID, ["default/web"])
    assert policy_of(plan(profiles, POD), UID) is None
    profiles.put(compile_profile(profile()))
    assert policy_of(plan(profiles, POD), UID)
    assert profiles.drop("default/web")
    assert policy_of(plan(profiles, POD), UID) is None


def test_an_expired_profile_ends_at_its_time(profiles: Profiles) -> None:
    profiles.put(compile_profile(profile(expires_at_ns=WALL + 5)))
    profiles.select(UID, ["default/web"])
    assert policy_of(plan(profiles, POD), UID)
    assert profiles.next_expiry(WALL) == WALL + 5
    assert policy_of(plan(profiles, POD, wall=WALL + 5), UID) is None
    assert profiles.next_expiry(WALL + 5) is None


def test_a_unit_and_what_is_below_a_path_are_selected_on_the_host(profiles: Profiles) -> None:
    profiles.put(compile_profile(host("unit", services=[service(unit="nginx.service")])))
    profiles.put(compile_profile(host("path", services=[service(cgroup_path="/system.slice")], mode="ALERT")))
    made = plan(profiles, NGINX, SSH)
    nginx, ssh = policy_of(made, NGINX.id), policy_of(made, SSH.id)
    assert nginx
    assert ssh
    assert (nginx.default.mode, ssh.default.mode) == (layout.MODE_ENFORCE, layout.MODE_ALERT)


def test_part_of_a_workload_may_be_selected_alone(profiles: Profiles) -> None:
    part = Workload(SSH.id, SSH.kind, 9, "/system.slice/ssh.service/inner", 1, unit="ssh.service")
    below = Workload(SSH.id, SSH.kind, 10, "/system.slice/ssh.service/inner/x", 1, unit="ssh.service")
    profiles.put(compile_profile(host(services=[service(cgroup_path=part.cgroup_path)])))
    made = plan(profiles, SSH, part, below)
    assert policy_of(made, SSH.id) is None
    assert profiles.subject_of(part) == profiles.subject_of(below) == f"{SSH.id}@{part.cgroup_path}"
    assert policy_of(made, profiles.subject_of(part))


def test_a_unit_that_does_not_run_yet_has_its_slot_waiting(profiles: Profiles) -> None:
    profiles.put(compile_profile(host(services=[service(unit="nginx.service")])))
    waiting = plan(profiles)
    assert waiting.expected == {"nginx.service": waiting.slots[NGINX.id]}
    assert plan(profiles, NGINX).slots[NGINX.id] == waiting.slots[NGINX.id]


def test_an_executable_is_governed_everywhere_on_the_host_but_not_in_pods(profiles: Profiles) -> None:
    curl = Program("/usr/bin/curl")
    profiles.put(compile_profile(host("curl", services=[service(executable=curl.path)])))
    profiles.put(compile_profile(host("ssh", services=[service(unit="ssh.service")], mode="ALERT")))
    profiles.select(UID, ())
    made = plan(profiles, NGINX, SSH, POD)
    for policy in (made.policies[layout.SLOT_HOST], policy_of(made, NGINX.id)):
        assert policy
        assert policy.default.mode == layout.MODE_NONE
        assert policy.grants_of(curl).mode == layout.MODE_ENFORCE
    ssh = policy_of(made, SSH.id)
    assert ssh
    assert ssh.default.mode == layout.MODE_ALERT
    assert ssh.grants_of(curl).mode == layout.MODE_ENFORCE
    assert policy_of(made, UID) is None


def test_what_cannot_be_united_is_refused_for_that_workload_alone(profiles: Profiles) -> None:
    keys = []
    for number in range(9):
        record = profile(f"p{number}", default=network(rules(f"10.{number}.0.0/16")))
        profiles.put(compile_profile(record))
        keys.append(f"default/p{number}")
    profiles.select(UID, keys)
    profiles.select(OTHER, keys[:1])
    made = plan(profiles, POD)
    assert "9 profiles" in str(made.refused[UID])
    assert made.slots[UID] not in made.policies
    assert policy_of(made, OTHER)


def test_a_slot_is_emptied_and_rests_when_its_workload_is_gone(profiles: Profiles) -> None:
    profiles.select(UID, ())
    slot = plan(profiles, POD).slots[UID]
    profiles.forget(UID)
    made = plan(profiles)
    assert made.policies[slot] is None
    assert UID not in made.slots
    soon = plan(profiles, NGINX, SSH, boot=BOOT + 1)
    assert slot not in soon.slots.values()


def test_replicas_share_one_policy(profiles: Profiles) -> None:
    profiles.put(compile_profile(profile()))
    for number in range(3):
        profiles.select(f"{UID[:-1]}{number}", ["default/web"])
    made = plan(profiles)
    assert len({id(policy_of(made, subject)) for subject in made.slots}) == 1


def test_rule_sets_are_compiled_again_once_each(profiles: Profiles) -> None:
    for name in ("a", "b"):
        profiles.put(compile_profile(profile(name, default=network(rules("10.0.0.0/8")))))
    content = compile_profile(profile(default=network(rules("10.0.0.0/8")))).default.content
    assert [each.content for each in profiles.rule_sets([content])] == [content]


def test_more_profiles_than_a_node_obeys_are_refused(
    profiles: Profiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sensor.policy.workloads.MAX_PROFILES", 1)
    profiles.put(compile_profile(profile("a")))
    profiles.put(compile_profile(profile("a", generation=2)))
    with pytest.raises(PolicyRefused, match="default/b: this node obeys 1"):
        profiles.put(compile_profile(profile("b")))


def test_slots_run_out_visibly_and_rest_before_they_are_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensor.policy.slots.SLOT_SELF_TEST", 4)
    slots = Slots()
    assert {slots.assign("a", 0), slots.assign("b", 0)} == {2, 3}
    assert slots.assign("c", 0) is None
    assert slots.exhausted == 1
    freed = slots.release("a", 0)
    assert slots.assign("c", QUARANTINE_NS - 1) is None
    assert slots.assign("c", QUARANTINE_NS) == freed


def test_adopted_slots_stay_with_their_workloads() -> None:
    slots = Slots()
    slots.adopt({"a": 2, "host": layout.SLOT_HOST}, others=[3])
    assert slots.get("a") == 2
    assert slots.get("host") is None
    assert slots.assign("b", 0) == 4
