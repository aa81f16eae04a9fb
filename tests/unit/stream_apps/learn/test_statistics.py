# SPDX-License-Identifier: Apache-2.0
"""The formulas against what they mean, and the interval against workloads whose truth is known."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_apps.learn.statistics import coverage, estimate, interval, unseen

UNITS = st.lists(st.sets(st.integers(0, 12), max_size=6), min_size=1, max_size=30)


def reference(units: list[set[int]]) -> tuple[Fraction, Fraction]:
    """Coverage and Chao2, straight from the sample: count, then put numbers into the books' text."""
    found = [sum(behaviour in unit for unit in units) for behaviour in set().union(*units)]
    m, n = len(units), sum(found)
    f1, f2 = sum(each == 1 for each in found), sum(each == 2 for each in found)
    if n == 0:
        return Fraction(0), Fraction(0)
    weight = Fraction((n - 1) * f1, (n - 1) * f1 + 2 * f2) if (n - 1) * f1 + 2 * f2 else Fraction(1)
    square = Fraction(f1 * f1, 2 * f2) if f2 else Fraction(f1 * (f1 - 1), 2)
    return 1 - Fraction(f1, n) * weight, Fraction(m - 1, m) * square


@given(UNITS)
def test_coverage_and_the_unseen_are_as_the_books_have_them(units: list[set[int]]) -> None:
    found = estimate((sum(each in unit for unit in units) for each in range(13)), len(units))
    expected, hidden = reference(units)
    assert found.coverage == pytest.approx(float(expected))
    assert found.unseen == pytest.approx(float(hidden))
    assert found.behaviours == len(set().union(*units))


@given(UNITS)
def test_the_interval_holds_the_estimate_and_stays_within_what_can_be(units: list[set[int]]) -> None:
    found = estimate((sum(each in unit for unit in units) for each in range(13)), len(units))
    assert 0 <= found.low <= found.coverage <= found.high <= 1


@pytest.mark.parametrize(
    ("n", "f1", "f2", "expected"),
    [(0, 0, 0, 0.0), (1, 1, 0, 0.0), (10, 0, 3, 1.0), (10, 2, 0, 0.8), (10, 2, 3, 1 - 0.2 * 18 / 24)],
)
def test_coverage_at_its_edges(n: int, f1: int, f2: int, expected: float) -> None:
    assert coverage(n, f1, f2) == pytest.approx(expected)


def test_nothing_new_in_n_is_three_over_n() -> None:
    low, high = interval(300, 0, 5)
    assert low == pytest.approx(0.99)
    assert high == 1.0


def test_without_a_behaviour_nothing_is_known() -> None:
    found = estimate([], 0)
    assert (found.coverage, found.low, found.high, found.unseen) == (0.0, 0.0, 1.0, 0.0)


def test_chao2_without_a_behaviour_seen_twice_is_its_corrected_form() -> None:
    assert unseen(10, 4, 0) == pytest.approx(0.9 * 6)
    assert unseen(10, 4, 2) == pytest.approx(0.9 * 4)


def workload_of(dice: random.Random) -> list[float]:
    """How likely each behaviour is in an hour of a pod: some always, many now and then, some hardly ever."""
    often = [dice.uniform(0.5, 1.0) for _ in range(dice.randrange(3, 15))]
    now_and_then = [dice.uniform(0.02, 0.3) for _ in range(dice.randrange(3, 15))]
    rarely = [10 ** dice.uniform(-3.5, -1.5) for _ in range(dice.randrange(5, 60))]
    return [*often, *now_and_then, *rarely]


@pytest.mark.parametrize("hours", [24, 168, 720])
def test_the_interval_has_the_truth_in_nine_of_ten_workloads(hours: int) -> None:
    dice = random.Random(5)
    runs, held = 400, 0
    for _ in range(runs):
        chances = workload_of(dice)
        counts = [sum(dice.random() < chance for _ in range(hours)) for chance in chances]
        seen = sum(chance for chance, count in zip(chances, counts, strict=True) if count)
        found = estimate(counts, hours)
        held += found.low <= seen / sum(chances) <= found.high
    assert held >= 0.9 * runs


def test_the_unseen_are_at_least_as_many_in_most_workloads() -> None:
    dice = random.Random(7)
    runs, below = 300, 0
    for _ in range(runs):
        chances = workload_of(dice)
        counts = [sum(dice.random() < chance for _ in range(96)) for chance in chances]
        hidden = sum(not count for count in counts)
        below += estimate(counts, 96).unseen <= hidden + 2 * (hidden + 1) ** 0.5
    assert below >= 0.8 * runs
