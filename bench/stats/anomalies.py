"""Repeated measurements that do not belong together: outliers, and two groups."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from statistics import median

FEWEST_FOR_GROUPS = 10
"""Number of values below which no groups are looked for."""


def find_outliers(values: Sequence[float]) -> list[float]:
    """Values far from the others: hyperfine's rule, |x - median| > 14.8 median absolute deviations.

    The factor makes it ten standard deviations of a normal distribution. Where more than half of
    the values are equal, the deviation is zero and counts as the smallest that a float shows beside
    1, as in hyperfine: every other value is an outlier.
    """
    if not values:
        return []
    middle = median(values)
    deviation = median(abs(value - middle) for value in values) or sys.float_info.epsilon
    return [value for value in values if abs(value - middle) / deviation > 14.826]


def find_two_groups(values: Sequence[float]) -> tuple[float, float] | None:
    """The medians of two groups into which values fall; None where they do not.

    Two groups are more than twice as far apart as either is wide, and each has a quarter of the
    values or more. Values of one group look so less than once in a hundred times, whatever their
    distribution (simulated in tests/stats/test_anomalies.py).
    """
    if len(values) < FEWEST_FOR_GROUPS:
        return None
    ordered = sorted(values)
    smallest = math.ceil(len(ordered) / 4)
    for split in range(smallest, len(ordered) - smallest + 1):
        low, high = ordered[:split], ordered[split:]
        if high[0] - low[-1] > 2 * max(low[-1] - low[0], high[-1] - high[0]):
            return median(low), median(high)
    return None
