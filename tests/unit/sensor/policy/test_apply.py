# SPDX-License-Identifier: Apache-2.0
"""Policies into the maps: shared, switched in one write, freed late, and never half in force."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sensor.kernel.policy_state import LearnedKey, LearnedValue
from sensor.policy import layout
from sensor.policy.apply import PolicyTables
from sensor.policy.limits import QUARANTINE_NS
from sensor.policy.rules import RuleSet
from sensor.policy.tables import POLICY_OF_TAG
from tests.support.fake_policy_maps import FakePolicyMaps
from tests.support.policies import RuleBook
from tests.support.profiles import TCP, network, process, profile, rules

if TYPE_CHECKING:
    from collections.abc import Collection

    from sensor.policy.policy import Policy

CURL = "/usr/bin/curl"


@pytest.fixture
def maps() -> FakePolicyMaps:
    return FakePolicyMaps()


@pytest.fixture
def source() -> RuleBook:
    return RuleBook()


@pytest.fixture
def tables(maps: FakePolicyMaps) -> PolicyTables:
    return PolicyTables(maps)


def web(cidr: str = "10.0.0.0/8", *names: str, **changed: Any) -> dict[str, Any]:
    return profile(default=network(rules(cidr, names=names, ports=((TCP, 443, 443),))), **changed)


def in_kernel(maps: FakePolicyMaps, slot: int) -> list[RuleSet]:
    """What the default rule sets of a slot are, read back from the maps."""
    policy = maps.policy_of(slot)
    found = []
    for index in policy.grants.rulesets if policy else ():
        value, tries = maps.ruleset_of(index)
        keys = {kind: tuple(sorted(tries.get(kind, {}))) for kind in layout.KINDS}
        names = tuple(
            (key[4 : 4 + int.from_bytes(key[:4], "little") // 8], tries["name"][key]) for key in keys["name"]
        )
        head = (value.flags, value.protocols, value.l7)
        found.append(
            RuleSet(*head, keys["address"], keys["port"], tuple(sorted(names)), keys["http"], value.content)
        )
    return found


def test_a_slot_leads_to_exactly_the_compiled_rules(
    maps: FakePolicyMaps, tables: PolicyTables, source: RuleBook
) -> None:
    policy = source.policy(web("10.0.0.0/8", "*.example.com"))
    assert tables.apply({5: policy}, source) == {}
    assert in_kernel(maps, 5) == [source.known[policy.default.contents[0]]]
    assert tables.in_force(5) == policy.content


def test_workloads_with_the_same_rules_share_them(
    maps: FakePolicyMaps, tables: PolicyTables, source: RuleBook
) -> None:
    policy = source.policy(web())
    other = source.policy(web(generation=2))
    assert tables.apply({5: policy, 6: policy, 7: other}, source) == {}
    assert len(maps.ruleset_array) == 1
    assert len(maps.policy_array) == 2
    assert source.asked == 1


def test_applying_the_same_again_writes_nothing(
    maps: FakePolicyMaps, tables: PolicyTables, source: RuleBook
) -> None:
    policy = source.policy(web())
    tables.apply({5: policy}, source)
    maps.log.clear()
    assert tables.apply({5: policy, 6: None}, source) == {}
    assert maps.log == []


def test_a_switch_is_the_last_write_and_its_number_grows(
    maps: FakePolicyMaps, tables: PolicyTables, source: RuleBook
) -> None:
    tables.apply({5: source.policy(web())}, source)
    before = maps.slots[5]
    maps.log.clear()
    tables.apply({5: source.policy(web("10.1.0.0/16"))}, source)
    assert maps.log.count("set_policy_slot") == 1
    assert maps.log[-1] == "set_policy_slot"
    assert maps.slots[5] >> 32 > before >> 32


def test_programs_that_run_are_told_apart_before_the_switch(
    maps: FakePolicyMaps, tables: PolicyTables, source: RuleBook
) -> None:
    tables.apply({5: source.policy(web(processes=[process(CURL)]))}, source)
    order = ["set_program_id", "identify_programs", "set_policy_slot"]
    assert [step for step in maps.log if step in order] == order
    tables.apply({6: source.policy(web("10.1.0.0/16", processes=[process(CURL)]))}, source)
    assert maps.identified == 1


def test_ids_that_a_killed_sensor_gave_are_given_to_what_runs_too(
    maps: FakePolicyMaps, source: RuleBook
) -> None:
    maps.set_program_id(layout.executable_key(CURL), 7)
    tables = PolicyTables(maps)
    tables.adopt()
    tables.apply({5: source.policy(web(processes=[process(CURL)]))}, source)
    assert maps.identified == 1


def test_a_path_has_the_same_id_after_it_was_forgotten(
    maps: FakePolicyMaps, tables: PolicyTables, source: RuleBook
) -> None:
    policy = source.policy(web(processes=[process(CURL)]))
    tables.apply({5: policy}, source)
    (before,) = maps.ids.values()
    tables.apply({5: None}, source)
    free_all(tables)
    assert maps.ids == {}
    tables.apply({5: policy}, source)
    assert list(maps.ids.values()) == [before]


def free_all(tables: PolicyTables, start_ns: int = 0) -> None:
    for step in range(4):
        tables.collect(start_ns + step * QUARANTINE_NS)


def test_what_no_slot_leads_to_is_freed_after_a_while_and_not_before(
    maps: FakePolicyMaps, tables: PolicyTables, source: RuleBook
) -> None:
    tables.apply({5: source.policy(web(processes=[process(CURL)]))}, source)
    tables.apply({5: None}, source)
    tables.collect(0)
    tables.collect(QUARANTINE_NS - 1)
    assert len(maps.policy_array) == 1
    assert len(maps.ruleset_array) == 2
    free_all(tables)
    assert (maps.policy_array, maps.ruleset_array, maps.tries, maps.rules, maps.ids) == ({}, {}, {}, {}, {})


def test_an_index_is_not_used_again_while_packets_may_look_at_it(
    maps: FakePolicyMaps, tables: PolicyTables, source: RuleBook
) -> None:
    seen = []
    for number in range(4):
        tables.apply({5: source.policy(web(f"10.{number}.0.0/16"))}, source)
        seen.append(maps.slots[5] & POLICY_OF_TAG)
        tables.collect(number)
    assert len(set(seen)) == 4


def test_a_policy_that_comes_back_in_time_is_not_built_again(tables: PolicyTables, source: RuleBook) -> None:
    one, other = source.policy(web()), source.policy(web("10.1.0.0/16"))
    for at, policy in enumerate((one, other, one)):
        tables.apply({5: policy}, source)
        tables.collect(at)
    assert source.asked == 2
    free_all(tables)
    assert tables.in_force(5) == one.content


def test_addresses_learned_before_a_change_count_on_and_go_with_the_last_that_could_use_them(
    maps: FakePolicyMaps, tables: PolicyTables, source: RuleBook
) -> None:
    tables.apply({5: source.policy(web("10.0.0.0/8", "a.example"))}, source)
    ((first, _),) = maps.ruleset_array.items()
    learned = LearnedKey(77, first, bytes(16))
    maps.learned_addresses[learned] = LearnedValue(0, 0)
    tables.apply({5: source.policy(web("10.0.0.0/8", "a.example", "b.example"))}, source)
    free_all(tables)
    policy = maps.policy_of(5)
    assert policy
    (second,) = policy.grants.rulesets
    assert maps.ruleset_array[second].previous == first
    # Its rules are gone, its index is not.
    assert not [key for key in maps.tries if key[1] == first]
    assert learned in maps.learned_addresses
    tables.apply({5: None}, source)
    free_all(tables, 10 * QUARANTINE_NS)
    assert maps.learned_addresses == {}
    assert maps.ruleset_array == {}


def steps_of(update: dict[int, Policy | None], source: RuleBook, maps: FakePolicyMaps) -> int:
    """How many writes an update takes."""
    copy = maps.after_a_crash()
    tables = PolicyTables(copy)
    tables.adopt()
    tables.apply(update, source)
    return len(copy.log)


@pytest.fixture
def update(maps: FakePolicyMaps, tables: PolicyTables, source: RuleBook) -> dict[int, Policy | None]:
    """Slots 5 and 6 are in force; this gives 5 other rules, 6 none and 7 the first."""
    old = source.policy(web("10.0.0.0/8", "a.example", processes=[process(CURL)]))
    tables.apply({5: old, 6: old}, source)
    new = source.policy(web("10.1.0.0/16", "b.example", processes=[process(CURL, network(rules("::/0")))]))
    return {5: new, 6: None, 7: new}


def test_a_failure_anywhere_leaves_the_policy_in_force_and_a_later_try_succeeds(
    maps: FakePolicyMaps, update: dict[int, Policy | None], source: RuleBook
) -> None:
    for step in range(steps_of(update, source, maps)):
        broken = maps.after_a_crash()
        tables = PolicyTables(broken)
        tables.adopt()
        before = dict(broken.slots)
        broken.break_after = step
        failed = tables.apply(update, source)
        for slot in update:
            if slot in failed:
                assert broken.slots.get(slot) == before.get(slot)
                assert "refused; make room" in str(failed[slot])
            assert broken.whole(slot)
        broken.break_after = None
        assert tables.apply(update, source) == {}
        free_all(tables)
        assert in_kernel(broken, 5) == [source.known[each] for each in wanted(update[5])]
        clean(broken, update)


def test_a_sensor_killed_anywhere_leaves_old_or_new_and_its_successor_finishes(
    maps: FakePolicyMaps, update: dict[int, Policy | None], source: RuleBook
) -> None:
    old = maps.policy_of(5)
    contents = {policy.content if policy else None for policy in update.values()} | {old and old.content}
    for step in range(steps_of(update, source, maps)):
        killed = maps.after_a_crash()
        tables = PolicyTables(killed)
        tables.adopt()
        killed.break_after = step
        tables.apply(update, source)
        left = killed.after_a_crash()
        for slot in update:
            found = left.policy_of(slot)
            assert left.whole(slot)
            assert (found.content if found else None) in contents
        idle = left.after_a_crash()
        waiting = PolicyTables(idle)
        waiting.adopt()
        free_all(waiting)
        built = {index for index, value in idle.ruleset_array.items() if value.content != bytes(16)}
        assert {key[1] for key in idle.tries} <= built
        successor = PolicyTables(left)
        successor.adopt()
        assert {key.policy for key in left.rules} <= left.policy_array.keys()
        assert successor.apply(update, source) == {}
        free_all(successor)
        for slot in (5, 7):
            assert in_kernel(left, slot) == [source.known[each] for each in wanted(update[slot])]
        clean(left, update)


def test_tries_that_a_killed_sensor_left_behind_do_not_speak_for_the_next_rules(
    maps: FakePolicyMaps, source: RuleBook
) -> None:
    stale = next(iter(source.policy(web("0.0.0.0/1")).default.contents))
    for index in range(1, 10):
        maps.tries["address", index] = dict(source.known[stale].items("address"))
    tables = PolicyTables(maps)
    tables.adopt()
    policy = source.policy(profile(default=network(rules(names=("a.example",)))))
    tables.apply({5: policy}, source)
    assert in_kernel(maps, 5) == [source.known[each] for each in wanted(policy)]


def test_a_policy_whose_rules_are_gone_is_not_taken_for_complete(
    maps: FakePolicyMaps, tables: PolicyTables, source: RuleBook
) -> None:
    policy = source.policy(web())
    tables.apply({5: policy}, source)
    maps.ruleset_array.clear()
    maps.tries.clear()
    successor = PolicyTables(maps)
    successor.adopt()
    assert successor.in_force(5) == b""
    successor.apply({5: policy}, source)
    assert in_kernel(maps, 5) == [source.known[each] for each in wanted(policy)]


def test_an_index_that_addresses_were_learned_under_is_kept_though_its_place_is_empty(
    maps: FakePolicyMaps, tables: PolicyTables, source: RuleBook
) -> None:
    tables.apply({5: source.policy(web("10.0.0.0/8", "a.example"))}, source)
    (first,) = maps.ruleset_array
    tables.apply({5: source.policy(web("10.0.0.0/8", "b.example"))}, source)
    del maps.ruleset_array[first]
    successor = PolicyTables(maps)
    successor.adopt()
    successor.apply({slot: source.policy(web(f"10.{slot}.0.0/16")) for slot in (6, 7)}, source)
    assert first not in maps.ruleset_array


def wanted(policy: Policy | None) -> tuple[bytes, ...]:
    return policy.default.contents if policy else ()


def clean(maps: FakePolicyMaps, update: dict[int, Policy | None]) -> None:
    """Nothing is left but what slots lead to, and indices of what it replaced."""
    for slot, policy in update.items():
        found = maps.policy_of(slot)
        assert (found.content if found else None) == (policy.content if policy else None)
    assert len(maps.policy_array) == len({policy.content for policy in update.values() if policy})
    policies = [policy for policy in update.values() if policy]
    contents = {content for policy in policies for content in policy.rule_sets()}
    held = {value.content for value in maps.ruleset_array.values()} - {bytes(16)}
    assert held == contents
    assert {key[1] for key in maps.tries} <= {
        index for index, value in maps.ruleset_array.items() if value.content in contents
    }
    assert {key.policy for key in maps.rules} <= maps.policy_array.keys()


def test_a_restarted_sensor_builds_nothing_again(
    maps: FakePolicyMaps, tables: PolicyTables, source: RuleBook
) -> None:
    policy = source.policy(web("10.0.0.0/8", "a.example", processes=[process(CURL)]))
    tables.apply({5: policy}, source)
    successor = PolicyTables(maps.after_a_crash())
    assert successor.adopt() == 1
    source.asked = 0
    assert successor.apply({5: policy, 6: policy}, source) == {}
    assert source.asked == 0


def test_one_rule_set_that_cannot_be_built_does_not_hold_up_the_others(
    maps: FakePolicyMaps, tables: PolicyTables, source: RuleBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = source.policy(web()), source.policy(web("10.1.0.0/16"))
    load = maps.load_trie

    def refuse(kind: layout.TrieKind, index: int, items: Any) -> None:
        held = list(items)
        if kind == "address" and held == list(source.known[bad.default.contents[0]].items("address")):
            maps.break_after = 0
        load(kind, index, held)

    monkeypatch.setattr(maps, "load_trie", refuse)

    drop = maps.drop_rulesets

    def recover(indices: Collection[int]) -> None:
        maps.break_after = None
        drop(indices)

    monkeypatch.setattr(maps, "drop_rulesets", recover)
    failed = tables.apply({5: good, 6: bad}, source)
    assert list(failed) == [6]
    assert tables.in_force(5) == good.content


def test_a_full_node_says_which_limit_was_met(
    tables: PolicyTables, source: RuleBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sensor.policy.tables.MAX_RULESETS", 3)
    policies: dict[int, Policy | None] = {slot: source.policy(web(f"10.{slot}.0.0/16")) for slot in (5, 6, 7)}
    failed = tables.apply(policies, source)
    assert [str(error) for error in failed.values()] == [
        "all 2 rule sets of this node are in use; give workloads that do the same one profile"
    ]


def test_more_programs_than_the_kernel_tells_apart_are_refused_with_the_numbers(
    tables: PolicyTables, source: RuleBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sensor.policy.build.MAX_PROGRAMS", 1)
    many = source.policy(web(processes=[process("/a"), process("/b")]))
    assert "2 programs more, and 0 of 1 are in use" in str(tables.apply({5: many}, source)[5])
