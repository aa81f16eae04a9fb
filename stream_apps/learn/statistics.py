# SPDX-License-Identifier: Apache-2.0
"""How much of what a workload does has been seen: species statistics over (pod, hour) incidences. Pure.

A behaviour is a species, an hour of one pod a sampling unit, and what counts is in how many units each
behaviour was found, not how often: bursts break the independence that the formulas rest on. Input: the
incidences of each behaviour and the number of units. Output: :class:`Estimate`. Failure: none; without an
incidence nothing is known, and the estimate says so.

Sources: Good-Turing coverage and its correction by f2 as in Chao and Jost (Ecology 93, 2012) and STADS
(Böhme, TOSEM 2018); its variance by Esty (Annals of Statistics 11, 1983); the lower bound of the unseen is
Chao2 (Biometrics 43, 1987).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

# Two-sided 95 % of a normal distribution.
_Z: Final = 1.959963984540054
# Nothing new in n: the 95 % bound is 3/n (the rule of three: 0.05 = exp(-3)).
_RULE_OF_THREE: Final = 3.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is known of the whole by what was seen.

    Attributes:
        behaviours: Seen.
        incidences: Of all of them; n.
        units: (pod, hour) units in which something was seen; m.
        once: Behaviours found in one unit only; f1 or Q1.
        twice: In two; f2 or Q2.
        coverage: Share of what happens that is of a behaviour seen already; 0 without an incidence.
        low: Its lower 95 % bound.
        high: Its upper 95 % bound.
        unseen: How many behaviours have not been seen at least (Chao2).
    """

    behaviours: int
    incidences: int
    units: int
    once: int
    twice: int
    coverage: float
    low: float
    high: float
    unseen: float


def estimate(incidences: Iterable[int], units: int) -> Estimate:
    """The estimate from the number of units in which each behaviour was found."""
    counts = [each for each in incidences if each > 0]
    total, once, twice = sum(counts), counts.count(1), counts.count(2)
    low, high = interval(total, once, twice)
    return Estimate(
        behaviours=len(counts),
        incidences=total,
        units=units,
        once=once,
        twice=twice,
        coverage=coverage(total, once, twice),
        low=low,
        high=high,
        unseen=unseen(units, once, twice),
    )


def coverage(n: int, f1: int, f2: int) -> float:
    """``1 - (f1/n) ((n-1) f1 / ((n-1) f1 + 2 f2))``; 0 without an incidence."""
    if n == 0:
        return 0.0
    if f1 == 0:
        return 1.0
    weight = (n - 1) * f1 / ((n - 1) * f1 + 2 * f2) if n > 1 else 1.0
    return 1.0 - f1 / n * weight


def interval(n: int, f1: int, f2: int) -> tuple[float, float]:
    """The 95 % interval of the coverage.

    Nothing found once: 3/n. Else by the variance of f1 against what it estimates, ``f1 + 2 f2``: from below
    as a score interval, from above by the Wilson-Hilferty bound of a count that varies so much, because for
    a small f1 a normal interval around it would reach too short.
    """
    if n == 0:
        return 0.0, 1.0
    if f1 == 0:
        return max(0.0, 1.0 - _RULE_OF_THREE / n), 1.0
    missing = 1.0 - coverage(n, f1, f2)
    most = missing + (_Z * _Z / 2 + _Z * math.sqrt(f1 + 2 * f2 + _Z * _Z / 4)) / n
    spread = (f1 + 2 * f2) / f1
    count = f1 / spread
    share = max(0.0, 1 - 1 / (9 * count) - _Z / (3 * math.sqrt(count))) ** 3
    return max(0.0, 1.0 - most), 1.0 - missing * share


def unseen(m: int, q1: int, q2: int) -> float:
    """Chao2: ``((m-1)/m) Q1^2 / (2 Q2)``; without a Q2 its corrected form ``((m-1)/m) Q1 (Q1-1) / 2``."""
    if m == 0:
        return 0.0
    return (m - 1) / m * (q1 * q1 / (2 * q2) if q2 else q1 * (q1 - 1) / 2)
