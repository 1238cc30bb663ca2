"""How many runs per side a comparison needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, stdev, variance

MOST_ADVISED = 10_000
"""Number of runs per side from which on none is advised: nobody would make them."""


def ratio_spread(first: Sequence[float], second: Sequence[float], paired: bool) -> float | None:
    """Standard deviation of the difference between one run of each side; None below two runs."""
    if min(len(first), len(second)) < 2:
        return None
    if paired:
        return stdev([b - a for a, b in zip(first, second, strict=True)])
    return math.sqrt(variance(first) + variance(second))


def runs_needed(deviation: float, difference: float, tail: float, power: float) -> int | None:
    """Runs per side that establish a difference with probability `power`.

    By the normal approximation, divided by the rank test's efficiency for normal data, 3/pi
    (Lehmann 1975).

    Args:
        deviation: standard deviation of a difference, by `ratio_spread`.
        difference: the true difference.
        tail: probability that the truth lies beyond either end of the interval.
        power: probability, above 0.5, that the interval excludes no difference.

    Returns:
        2 or more; None where too many runs are needed.
    """
    z = NormalDist().inv_cdf(1 - tail) + NormalDist().inv_cdf(power)
    try:
        count = math.ceil((deviation * z / difference) ** 2 * math.pi / 3)
    except (OverflowError, ZeroDivisionError):
        return None
    return max(2, count) if count < MOST_ADVISED else None


def fewest_runs(tail: float, paired: bool) -> int:
    """Values per side, or pairs, below which ranks have no interval of that tail."""
    count = 1
    while (2**count if paired else math.comb(2 * count, count)) * tail < 1:
        count += 1
    return count
