# SPDX-License-Identifier: Apache-2.0
"""Which rules and which mode the profiles of a workload give each of its programs together."""

from __future__ import annotations

from typing import Any

import pytest

from sensor.policy import layout
from sensor.policy.errors import PolicyRefused
from sensor.policy.policy import Policy, Selection, union_of
from sensor.policy.profile import Program, compile_profile
from tests.support.profiles import application, network, process, profile, rules, service

NOW = 1000
CURL = Program("/usr/bin/curl")
OPEN, WEB, NONE = network(rules("0.0.0.0/0")), network(rules("10.0.0.0/8")), network()


def policy_of(*records: dict[str, Any], executables: dict[str, set[str]] | None = None) -> Policy:
    selections = [
        Selection(compile_profile(record), frozenset(only) if only is not None else None)
        for record in records
        for only in [(executables or {}).get(record["name"])]
    ]
    policy = union_of(selections, NOW)
    assert policy is not None
    return policy


def content(rules_given: dict[str, Any] | None) -> bytes:
    return compile_profile(profile(default=rules_given)).default.content


def test_a_profile_that_does_not_name_a_program_gives_it_its_default() -> None:
    policy = policy_of(
        profile("a", default=NONE, processes=[process(CURL.path, OPEN)]), profile("b", default=WEB)
    )
    assert set(policy.default.contents) == {content(NONE), content(WEB)}
    assert set(policy.grants_of(CURL).contents) == {content(OPEN), content(WEB)}


def test_rules_of_an_interpreter_count_for_its_scripts_that_another_profile_names() -> None:
    script = Program("/usr/bin/python3", "/app/x.py")
    policy = policy_of(
        profile("a", processes=[process(script.path, OPEN)]),
        profile("b", processes=[process(script.path, WEB, script=script.script)]),
    )
    assert set(policy.grants_of(script).contents) == {content(OPEN), content(WEB)}
    assert set(policy.grants_of(Program(script.path)).contents) == {content(OPEN), content(None)}


@pytest.mark.parametrize(
    ("modes", "mode"),
    [
        (["IGNORE"], layout.MODE_NONE),
        (["IGNORE", "IGNORE"], layout.MODE_NONE),
        (["IGNORE", "ALERT"], layout.MODE_ALERT),
        (["ALERT", "ENFORCE"], layout.MODE_ENFORCE),
    ],
)
def test_the_strictest_mode_holds(modes: list[str], mode: int) -> None:
    assert policy_of(*(profile(f"p{at}", mode=each) for at, each in enumerate(modes))).default.mode == mode


def test_a_dry_run_refuses_nothing_and_a_program_may_have_a_mode_of_its_own() -> None:
    record = profile(mode="ALERT", processes=[process(CURL.path, mode="ENFORCE")])
    assert policy_of(record).grants_of(CURL).mode == layout.MODE_ENFORCE
    assert policy_of(record | {"dry_run": True}).grants_of(CURL).mode == layout.MODE_ALERT


def test_an_expired_profile_does_not_count() -> None:
    ended, lasting = profile("a", expires_at_ns=NOW), profile("b", expires_at_ns=NOW + 1, default=WEB)
    assert policy_of(ended, lasting).default.contents == (content(WEB),)
    assert union_of([Selection(compile_profile(ended))], NOW) is None


def test_the_order_of_profiles_changes_nothing() -> None:
    one, other = profile("a", default=WEB), profile("b", default=OPEN, processes=[process(CURL.path)])
    assert policy_of(one, other) == policy_of(other, one)


def test_the_generation_is_the_newest_and_flags_add_up() -> None:
    policy = policy_of(
        profile("a", generation=5, arp_spoofing=True), profile("b", generation=9, trace_dns=True)
    )
    assert policy.generation == 9
    assert policy.flags == layout.POLICY_ARP_SPOOFING | layout.POLICY_TRACE_DNS


def test_a_ninth_profile_with_rules_of_its_own_is_refused_by_name() -> None:
    records = [profile(f"p{at}", default=network(rules(f"10.{at}.0.0/16"))) for at in range(9)]
    assert len(policy_of(*records[:8]).default.contents) == 8
    assert len(policy_of(*records[:8], records[0] | {"name": "same"}).default.contents) == 8
    with pytest.raises(PolicyRefused, match=r"9 profiles with different rules.*default/p8"):
        policy_of(*records)


def test_a_profile_of_an_executable_says_nothing_about_the_rest_of_the_host() -> None:
    record = profile(scope="NODE", services=[service(executable=CURL.path)], default=WEB)
    policy = policy_of(record, executables={"web": {CURL.path}})
    assert policy.default.mode == layout.MODE_NONE
    assert policy.grants_of(CURL).contents == (content(WEB),)
    assert policy.grants_of(CURL).mode == layout.MODE_ENFORCE
    assert policy.flags == layout.POLICY_LOOPBACK | layout.POLICY_PROGRAMS


def test_a_profile_gives_its_rules_back_one_by_one() -> None:
    compiled = compile_profile(
        profile(default=WEB, processes=[process(CURL.path, OPEN), process("/bin/x", WEB)])
    )
    wanted = {content(WEB), content(OPEN), bytes(16)}
    assert sorted(each.content for each in compiled.rule_sets(wanted)) == sorted(
        {content(WEB), content(OPEN)}
    )
    assert list(compiled.rule_sets(set())) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"default": network(rules("10.0.0/8"))}, "profile default/web: default: '10.0.0/8' is no CIDR"),
        ({"processes": [process("/x", network(rules(names=("",))))]}, r"processes\[0\] /x: name"),
        ({"processes": [process("/x"), process("/x")]}, "named twice"),
        ({"processes": [process("/" + "x" * 255)]}, "up to 255"),
        ({"processes": [process("/")]}, "names no file"),
        ({"processes": [process(f"/{at}") for at in range(513)]}, "513 are more than the 512"),
    ],
)
def test_a_profile_that_cannot_be_enforced_is_refused_with_the_place(
    changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(PolicyRefused, match=said):
        compile_profile(profile(**changed))


def test_the_layers_of_a_profile_survive_being_packed() -> None:
    given = network(rules("10.0.0.0/8", names=("*.a.example",), l7_given=application("HTTP")), WEB["egress"])
    compiled = compile_profile(profile(default=given))
    assert [network_given for _, network_given in compiled.networks()] == [given]
    assert next(compiled.rule_sets({compiled.default.content})).content == compiled.default.content
