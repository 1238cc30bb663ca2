"""Shares of successes on two sides, and whether values of equal seeds go together.

Source: Newcombe 1998 (method 10: the interval of a difference of shares, from Wilson's intervals).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import StatisticsError, correlation

from bench.stats.intervals import Estimate, proportion_interval
from bench.stats.student_t import t_quantile

TOGETHER_TAIL = 0.01
"""Probability that unrelated values are said to go together."""


def share_difference(base: int, base_count: int, new: int, new_count: int, tail: float) -> Estimate:
    """Share of successes of the new side minus that of the base, with Newcombe's interval.

    Args:
        base: successes on the base's side, of `base_count` runs.
        base_count: 1 or more.
        new: successes on the new side, of `new_count` runs.
        new_count: 1 or more.
        tail: probability that the truth lies beyond either end of the interval.
    """
    before = proportion_interval(base, base_count, tail)
    after = proportion_interval(new, new_count, tail)
    value = after.value - before.value
    low = value - math.hypot(after.value - _end(after.low), _end(before.high) - before.value)
    high = value + math.hypot(_end(after.high) - after.value, before.value - _end(before.low))
    return Estimate(value, max(-1.0, low), min(1.0, high))


def go_together(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether pairs of values are shown to be positively correlated (Student's t, one-sided).

    Pairs that do not go together are better compared as two samples: pairing would cost half of
    the degrees of freedom. The means of normal values do not depend on their correlation in the
    sample, so this choice hardly changes how often an interval is wrong.

    Args:
        first: values, one a pair.
        second: as many values, in the same order.
    """
    if len(first) < 3:
        return False
    try:
        share = correlation(first, second)
    except StatisticsError:  # one side does not vary
        return False
    if share >= 1 - 1e-9:
        return True
    degrees = len(first) - 2
    statistic = share * math.sqrt(degrees / (1 - share * share)) if share > 0 else 0.0
    return statistic > t_quantile(degrees, 1 - TOGETHER_TAIL)


def _end(end: float | None) -> float:
    """An end of Wilson's interval, which always exists."""
    assert end is not None
    return end
