# SPDX-License-Identifier: Apache-2.0
"""Percentiles and spreads."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile of the values, which need no order."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def median(values: Sequence[float]) -> float:
    """Return the nearest-rank median."""
    return percentile(values, 50)


def spread(values: Sequence[float]) -> str:
    """Return ``minimum..maximum`` for people."""
    return f"{min(values):.2f}..{max(values):.2f}"
