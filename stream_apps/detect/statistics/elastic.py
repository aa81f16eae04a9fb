# SPDX-License-Identifier: Apache-2.0
"""How much a process looks like a beacon over all its destinations, by the measures of Elastic's transform.

Input: times and bytes of a process's connections (elastic/integrations, ``packages/beaconing``). Output: 0 to
3 points: even or periodic counts in buckets of a minute over six hours; even bytes out; even bytes in. Values
are trimmed to their 10th to 80th percentile before their variation is taken. Failure: less than six buckets
with connections have no points.
"""

from __future__ import annotations

from collections import Counter
from operator import mul
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# The transform's parameters.
BUCKET_S: Final = 60
BUCKETS: Final = 360
MIN_BUCKETS: Final = 6
COUNT_VARIATION: Final = 0.1
BYTES_VARIATION: Final = 0.05
AUTOCOVARIANCE: Final = 0.7
_LOW, _HIGH = 0.1, 0.8

Connection = tuple[int, int, int]
"""Second, bytes sent, bytes received."""


def points(connections: Sequence[Connection], end_s: int) -> int:
    """Points of a process.

    Args:
        connections: Of the process.
        end_s: The last second of the window.
    """
    buckets = _buckets(connections, end_s)
    return sum(is_even(each, BYTES_VARIATION) for each in buckets[1:]) + is_regular(buckets[0])


def has_all_points(connections: Sequence[Connection], end_s: int) -> bool:
    """Whether a process has all three points; what costs little is asked first."""
    counts, sent, received = _buckets(connections, end_s)
    return is_even(sent, BYTES_VARIATION) and is_even(received, BYTES_VARIATION) and is_regular(counts)


def _buckets(connections: Sequence[Connection], end_s: int) -> tuple[Counter[int], list[int], list[int]]:
    """Counts by bucket, and bytes of the buckets that have connections; nothing of too few buckets."""
    last = end_s // BUCKET_S
    counts: Counter[int] = Counter()
    sent: Counter[int] = Counter()
    received: Counter[int] = Counter()
    for second, bytes_out, bytes_in in connections:
        bucket = second // BUCKET_S
        if last - BUCKETS < bucket <= last:
            counts[bucket] += 1
            sent[bucket] += bytes_out
            received[bucket] += bytes_in
    if len(counts) < MIN_BUCKETS:
        return Counter(), [], []
    return counts, list(sent.values()), list(received.values())


def is_regular(counts: Mapping[int, int]) -> bool:
    """Whether counts by bucket are even or periodic, from the first bucket to the last."""
    if not counts:
        return False
    first, last = min(counts), max(counts)
    series = [counts.get(each, 0) for each in range(first, last + 1)]
    return is_even(series, COUNT_VARIATION) or autocovariance(series) >= AUTOCOVARIANCE


def is_even(values: Sequence[int], most: float) -> bool:
    """Whether the trimmed values vary by no more than a share of their mean."""
    if not values:
        return False
    ordered = sorted(values)
    size = len(ordered)
    kept = ordered[int(_LOW * size) : max(int(_HIGH * size), int(_LOW * size) + 1)]
    mean = sum(kept) / len(kept)
    if not mean:
        return False
    deviation: float = (sum((each - mean) ** 2 for each in kept) / len(kept)) ** 0.5
    return deviation <= most * mean


def autocovariance(series: Sequence[int]) -> float:
    """The largest normalised autocovariance over the lags up to half the series; 0 for a constant one."""
    size = len(series)
    mean = sum(series) / size
    centred = [each - mean for each in series]
    variance = sum(each * each for each in centred) / size
    if not variance:
        return 0.0
    best = 0.0
    for lag in range(1, size // 2 + 1):
        pairs = size - lag
        covariance = sum(map(mul, centred, centred[lag:])) / pairs
        best = max(best, covariance / variance)
    return best
