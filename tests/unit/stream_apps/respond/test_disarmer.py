# SPDX-License-Identifier: Apache-2.0
"""A rule that would cut more than a person would believe cuts nothing, and says so."""

from __future__ import annotations

from stream_apps.respond.disarmer import Attempt, Disarmer, DisarmerLimits
from stream_apps.respond.limits import FLEET, Allowance, Limits, Rate

SECOND = 1_000_000_000
NOW = 1_798_000_000 * SECOND
PLENTY = Rate(100_000, 100_000)


def attempt(workload: str, tree: str = "", executable: str = "") -> Attempt:
    return Attempt("n", workload, tree or workload, executable)


def allowed(disarmer: Disarmer, *attempts: Attempt, at_ns: int = NOW) -> list[bool]:
    return [disarmer.allows(each, at_ns) for each in attempts]


def test_too_many_workloads_disarm_until_a_window_without_attempts() -> None:
    disarmer = Disarmer(DisarmerLimits(max_workloads=2, max_trees=100))
    assert allowed(disarmer, *map(attempt, "abaca")) == [True, True, True, False, False]
    assert not disarmer.allows(attempt("a"), NOW + 59 * SECOND)
    assert not disarmer.allows(attempt("a"), NOW + 118 * SECOND)
    assert disarmer.allows(attempt("a"), NOW + 178 * SECOND)
    assert not disarmer.disarmed


def test_too_many_trees_or_executables_disarm_even_in_one_workload() -> None:
    trees = Disarmer(DisarmerLimits(max_workloads=2, max_trees=3))
    assert allowed(trees, *(attempt("a", str(n)) for n in range(5))) == [True, True, True, False, False]
    programs = Disarmer(DisarmerLimits(max_workloads=2, max_trees=9, max_executables=2))
    wanted = [attempt("a", "t", each) for each in ("/bin/a", "/bin/b", "", "/bin/a", "/bin/c")]
    assert allowed(programs, *wanted) == [True, True, True, True, False]


def test_a_new_rule_that_does_so_is_dismantled_and_stays_so() -> None:
    disarmer = Disarmer(DisarmerLimits(2, 99, new_for_ns=600 * SECOND), "r")
    assert allowed(disarmer, *map(attempt, "abc")) == [True, True, False]
    assert not disarmer.allows(attempt("a"), NOW + 86_400 * SECOND)
    (change,) = disarmer.changes(NOW + 86_400 * SECOND)
    assert (change.state, change.name) == ("dismantled", "r")
    assert "until the configuration is loaded again" in change.reason


def test_a_rule_that_behaved_for_long_enough_is_only_disarmed() -> None:
    disarmer = Disarmer(DisarmerLimits(2, 99, new_for_ns=600 * SECOND), "r")
    assert disarmer.allows(attempt("a"), NOW)
    later = NOW + 600 * SECOND
    assert allowed(disarmer, *map(attempt, "abc"), at_ns=later) == [True, True, False]
    assert [each.state for each in disarmer.changes(later)] == ["disarmed"]
    assert [each.state for each in disarmer.changes(later + 60 * SECOND)] == ["armed"]
    assert disarmer.changes(later + 61 * SECOND) == []


def test_a_flood_does_not_grow_what_the_disarmer_remembers() -> None:
    disarmer = Disarmer(DisarmerLimits(2, 3))
    for number in range(1000):
        disarmer.allows(attempt("a", str(number)), NOW)
    assert len(disarmer._trees._seen) == 4


def test_the_window_and_its_length_are_the_configurations() -> None:
    disarmer = Disarmer(DisarmerLimits(1, 99, window_ns=10 * SECOND))
    assert disarmer.allows(attempt("a"), NOW)
    assert disarmer.allows(attempt("b"), NOW + 10 * SECOND)
    assert not disarmer.allows(attempt("c"), NOW + 19 * SECOND)


def allowance(name: str = "p", limits: DisarmerLimits | None = None) -> Allowance:
    return Allowance(name, PLENTY, limits or DisarmerLimits(99, 99))


def test_many_rules_together_disarm_the_fleet() -> None:
    limits = Limits(PLENTY, DisarmerLimits(3, 99))
    found = [limits.objection(allowance(), f"r{n}", attempt(f"w{n}"), NOW) for n in range(5)]
    assert [each and each.kind for each in found] == [None, None, None, "disarmed", "disarmed"]
    assert limits.disarmed_rules() == [FLEET]
    held = limits.held_back(allowance(), "a rule that never tried")
    assert held is not None
    assert held.kind == "disarmed"
    assert [each.state for each in limits.changes(NOW + 60 * SECOND)] == ["disarmed", "armed"]
    assert limits.held_back(allowance(), "r1") is None


def test_a_rule_gone_mad_does_not_silence_the_others() -> None:
    limits = Limits(PLENTY, DisarmerLimits(5, 99))
    mad = allowance("mad", DisarmerLimits(2, 99))
    for number in range(50):
        limits.objection(mad, "mad", attempt(f"w{number}"), NOW)
    assert limits.disarmed_rules() == ["mad"]
    assert limits.objection(allowance(), "sane", attempt("x"), NOW) is None
