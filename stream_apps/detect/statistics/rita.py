# SPDX-License-Identifier: Apache-2.0
"""How much connections look like a beacon, by the measures of RITA v5.

Input: times in seconds and sizes in bytes of connections to one destination within a window. Output:
:class:`BeaconScore`, four parts from 0 to 1 and their mean. The formulas are written anew from their
description (activecm/rita, ``analysis/beacons.go``); quartiles are taken at the nearest rank, as RITA does.
Failure: less than four distinct times have no score.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# RITA's constants.
MIN_TIMES: Final = 4
BINS: Final = 24
_MIN_RANGE: Final = 10
_MODAL_BARS: Final = 11
_MODAL_WIDTH: Final = 0.05
_DURATION_BARS: Final = 6
_IDEAL_RUN: Final = 12
# Of a Poisson process, whose gaps are exponential: the share between three and five quarters of the median.
_NEAR: Final = 0.25
_NEAR_BY_CHANCE: Final = 2**-0.75 - 2**-1.25


@dataclass(frozen=True, slots=True)
class BeaconScore:
    """The parts of a score.

    Attributes:
        timing: How even the gaps are.
        size: How even the sizes are.
        histogram: How even the window is filled.
        duration: How long it goes on.
        regularity: As the function of that name has it.
        period_s: The median gap.
    """

    timing: float
    size: float
    histogram: float
    duration: float
    regularity: float
    period_s: int

    @property
    def score(self) -> float:
        """The mean of the parts."""
        return (self.timing + self.size + self.histogram + self.duration) / 4


def beacon_score(times_s: Sequence[int], sizes: Sequence[int], window: tuple[int, int]) -> BeaconScore | None:
    """Score the connections to one destination.

    Args:
        times_s: When they began, in any order.
        sizes: What each sent.
        window: First second and the one after the last of the window.
    """
    times = sorted(set(times_s))
    if len(times) < MIN_TIMES:
        return None
    gaps = _gaps(times_s)
    bars = histogram(times_s, window)
    span = (times[-1] - times[0]) / (window[1] - window[0])
    return BeaconScore(
        timing=evenness(gaps, small=1.0),
        size=evenness(sizes, small=0.0) if sizes else 0.0,
        histogram=max(flatness(bars), bimodal_fit(bars)),
        duration=duration(bars, span),
        regularity=regularity(times_s),
        period_s=_rank(sorted(gaps), 0.5),
    )


def evenness(values: Sequence[int], small: float) -> float:
    """Half symmetry, half narrowness; ``small`` is the narrowness of values whose median is below 1."""
    ordered = sorted(values)
    low, middle, high = (_rank(ordered, share) for share in (0.25, 0.5, 0.75))
    skew = 0.0
    if high - low >= _MIN_RANGE and middle not in (low, high):
        skew = (low + high - 2 * middle) / (high - low)
    deviation = _rank(sorted(abs(each - middle) for each in ordered), 0.5)
    narrow = small if middle < 1 else max(0.0, (middle - deviation) / middle)
    return (1 - abs(skew) + narrow) / 2


def regularity(times_s: Iterable[int]) -> float:
    """By how many standard deviations more gaps lie within a quarter of their median than by chance.

    That is how many a Poisson process, calls at random, would have there: a binomial variable.
    """
    gaps = _gaps(times_s)
    if not gaps:
        return 0.0
    middle = _rank(sorted(gaps), 0.5)
    near = sum(1 for each in gaps if abs(each - middle) <= middle * _NEAR)
    expected = len(gaps) * _NEAR_BY_CHANCE
    return float((near - expected) / (expected * (1 - _NEAR_BY_CHANCE)) ** 0.5)


def _gaps(times_s: Iterable[int]) -> list[int]:
    return [later - earlier for earlier, later in pairwise(sorted(set(times_s)))]


def histogram(times_s: Sequence[int], window: tuple[int, int]) -> list[int]:
    """How many connections fall in each of the bins of a window."""
    first, end = window
    bars = [0] * BINS
    for each in times_s:
        bars[min(max((each - first) * BINS // (end - first), 0), BINS - 1)] += 1
    return bars


def flatness(bars: Sequence[int]) -> float:
    """One less the coefficient of variation of all bars, at least 0."""
    mean = sum(bars) / len(bars)
    if not mean:
        return 0.0
    deviation: float = (sum((each - mean) ** 2 for each in bars) / len(bars)) ** 0.5
    return max(0.0, 1 - deviation / mean)


def bimodal_fit(bars: Sequence[int]) -> float:
    """How many of the filled bars have one of the two most frequent heights, give or take one bar."""
    filled = [each for each in bars if each]
    if len(filled) < _MODAL_BARS:
        return 0.0
    width = max(1.0, _MODAL_WIDTH * max(filled))
    heights = Counter(int(each / width) for each in filled)
    most = sum(count for _, count in heights.most_common(2))
    return min(1.0, most / (len(filled) - 1))


def duration(bars: Sequence[int], span: float) -> float:
    """How much of the window it spans, or how long it went on without a pause; 0 for less than six bars."""
    if sum(1 for each in bars if each) < _DURATION_BARS:
        return 0.0
    longest = run = 0
    for each in bars:
        run = run + 1 if each else 0
        longest = max(longest, run)
    return min(1.0, max(span, longest / _IDEAL_RUN))


def _rank(ordered: Sequence[int], share: float) -> int:
    return ordered[round(share * (len(ordered) - 1))]
