# SPDX-License-Identifier: Apache-2.0
"""RITA's and Elastic's measures against the formulas written out, and on series whose answer is known."""

from __future__ import annotations

import itertools
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_apps.detect.statistics import elastic, rita

HOUR = 3600
WINDOW = (0, 24 * HOUR)


def nearest(values: list[int], share: float) -> int:
    return sorted(values)[round(share * (len(values) - 1))]


def written_out(values: list[int], small: float) -> float:
    """RITA's (s + m)/2 as the formula reads."""
    q1, q2, q3 = (nearest(values, share) for share in (0.25, 0.5, 0.75))
    skew = 0.0 if q3 - q1 < 10 or q2 in (q1, q3) else (q1 + q3 - 2 * q2) / (q3 - q1)
    mad = nearest([abs(each - q2) for each in values], 0.5)
    narrow = small if q2 < 1 else max(0.0, (q2 - mad) / q2)
    return ((1 - abs(skew)) + narrow) / 2


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=60), st.sampled_from([0.0, 1.0]))
def test_evenness_is_the_formula(values: list[int], small: float) -> None:
    assert rita.evenness(values, small) == pytest.approx(written_out(values, small))


@given(st.lists(st.integers(0, 50), min_size=24, max_size=24))
def test_flatness_is_one_less_the_coefficient_of_variation(bars: list[int]) -> None:
    mean = statistics.fmean(bars)
    expected = 0.0 if not mean else max(0.0, 1 - statistics.pstdev(bars) / mean)
    assert rita.flatness(bars) == pytest.approx(expected)


@given(st.lists(st.integers(0, WINDOW[1] - 1), min_size=1, max_size=200))
def test_parts_are_between_nothing_and_all_and_every_connection_is_in_a_bar(times: list[int]) -> None:
    assert sum(rita.histogram(times, WINDOW)) == len(times)
    found = rita.beacon_score(times, [100] * len(times), WINDOW)
    assert (found is None) == (len(set(times)) < rita.MIN_TIMES)
    if found:
        for part in (found.timing, found.size, found.histogram, found.duration, found.score):
            assert 0 <= part <= 1
        mean = (found.timing + found.size + found.histogram + found.duration) / 4
        assert found.score == pytest.approx(mean)


def test_a_perfect_beacon_scores_one() -> None:
    found = rita.beacon_score(list(range(0, 24 * HOUR, 60)), [512] * 1440, WINDOW)
    assert found
    assert found.score == pytest.approx(1.0, abs=0.001)
    assert found.period_s == 60


@pytest.mark.parametrize("jitter", [0.1, 0.2, 0.4])
def test_a_beacon_with_jitter_scores_high_and_a_person_low(jitter: float) -> None:
    dice = random.Random(1)
    now, times = 0.0, []
    while now < 24 * HOUR:
        times.append(int(now))
        now += 300 * (1 + dice.uniform(-jitter, jitter))
    beacon = rita.beacon_score(times, [200 + dice.randrange(20) for _ in times], WINDOW)
    now, times = 9.0 * HOUR, []
    while now < 12 * HOUR:
        times.append(int(now))
        now += dice.paretovariate(0.8)
    person = rita.beacon_score(times, [int(dice.paretovariate(0.5) * 100) for _ in times], WINDOW)
    assert beacon
    assert person
    assert beacon.score > 0.85
    assert person.score < 0.55


def test_bars_and_runs_have_their_least_numbers() -> None:
    assert rita.duration([1] * 5 + [0] * 19, 1.0) == 0.0
    assert rita.duration([1] * 6 + [0] * 18, 0.25) == 0.5
    assert rita.duration([1, 0] * 12, 0.9) == 0.9
    assert rita.bimodal_fit([5] * 10 + [0] * 14) == 0.0
    assert rita.bimodal_fit([100] * 6 + [40] * 6 + [0] * 12) == 1.0
    assert rita.bimodal_fit([100, 10, 20, 30, 40, 50, 60, 70, 80, 90, 5, 15]) == pytest.approx(2 / 11)


def calls(period_s: int, hours: int, sent: int = 300, received: int = 900) -> list[tuple[int, int, int]]:
    return [(each, sent, received) for each in range(0, hours * HOUR, period_s)]


@pytest.mark.parametrize("period_s", [30, 60, 90, 300, 600, 1800])
def test_elastic_gives_a_beacon_all_points(period_s: int) -> None:
    assert elastic.points(calls(period_s, 6), 6 * HOUR - 1) == 3
    assert elastic.has_all_points(calls(period_s, 6), 6 * HOUR - 1)


def test_elastic_wants_six_buckets_and_even_sizes() -> None:
    assert elastic.points(calls(60, 6)[:5], 299) == 0
    dice = random.Random(2)
    uneven = [(second, dice.randrange(10_000), dice.randrange(10_000)) for second, _, _ in calls(300, 6)]
    assert elastic.points(uneven, 6 * HOUR - 1) == 1
    assert not elastic.has_all_points(uneven, 6 * HOUR - 1)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6 * HOUR - 1), st.integers(0, 999), st.integers(0, 999)), max_size=80)
)
def test_all_points_are_all_points(connections: list[tuple[int, int, int]]) -> None:
    end = 6 * HOUR - 1
    assert elastic.has_all_points(connections, end) == (elastic.points(connections, end) == 3)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=60))
def test_autocovariance_is_the_formula(series: list[int]) -> None:
    mean = statistics.fmean(series)
    variance = statistics.pvariance(series)
    size = len(series)
    expected = 0.0
    if variance:
        for lag in range(1, size // 2 + 1):
            pairs = [(series[each] - mean) * (series[each + lag] - mean) for each in range(size - lag)]
            expected = max(expected, statistics.fmean(pairs) / variance)
    assert elastic.autocovariance(series) == pytest.approx(expected)


def test_a_narrow_range_has_no_skew() -> None:
    assert rita.evenness([1, 1, 2, 9, 9], small=1.0) == pytest.approx(0.75)


def test_elastic_trims_what_stands_out() -> None:
    assert elastic.is_even([300] * 18 + [0, 99_999], 0.05)
    assert not elastic.is_even([300] * 10 + [900] * 10, 0.05)


def test_even_gaps_are_regular_and_random_ones_are_not() -> None:
    assert rita.regularity([5]) == 0
    assert rita.regularity(range(0, 1000, 100)) == pytest.approx(6.53, abs=0.01)  # 9 of 9, not 1.57
    dice = random.Random(2)
    for _ in range(200):
        times = [int(each) for each in itertools.accumulate(dice.expovariate(0.001) for _ in range(24))]
        assert rita.regularity(times) < 5
