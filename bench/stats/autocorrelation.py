"""Are measurements, in the order in which they were made, independent of each other?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from bench.stats.sums import exact_sum

FEWEST_VALUES = 10
"""Number of values below which nothing is said: the normal approximation needs as many."""


@dataclass(frozen=True, slots=True)
class Autocorrelation:
    """How alike neighbours are in a series."""

    coefficient: float
    """Of neighbouring ranks: 0 for independent values, 1 for values that hardly change."""
    p_value: float
    """Probability of neighbours at least as alike if the order were chance."""


def lag_one(values: Sequence[float]) -> Autocorrelation | None:
    """The correlation of each value with the next, by ranks, tested one-sided.

    Von Neumann's ratio of ranks (Bartels 1982, Journal of the American Statistical Association 77,
    with the normal approximation): the result holds for any distribution, and an outlier is only
    the largest rank.

    Args:
        values: in the order in which they were measured.

    Returns:
        None for fewer than `FEWEST_VALUES` values, and where all are equal.
    """
    count = len(values)
    ranks = _ranks(values)
    mean = (count + 1) / 2
    spread = exact_sum((rank - mean) ** 2 for rank in ranks)
    if count < FEWEST_VALUES or spread == 0:
        return None
    neighbours = zip(ranks[1:], ranks[:-1], strict=True)
    ratio = exact_sum((later - earlier) ** 2 for later, earlier in neighbours) / spread
    numerator = 4 * (count - 2) * (5 * count**2 - 2 * count - 9)
    variance = numerator / (5 * count * (count + 1) * (count - 1) ** 2)
    return Autocorrelation(
        coefficient=1 - ratio / 2,
        p_value=NormalDist().cdf((ratio - 2) / math.sqrt(variance)),
    )


def _ranks(values: Sequence[float]) -> list[float]:
    """The rank of each value, from 1; equal values share the mean of their ranks."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for index in order[start:end]:
            ranks[index] = (start + 1 + end) / 2
        start = end
    return ranks
