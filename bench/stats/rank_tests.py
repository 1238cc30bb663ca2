"""The null distributions of two rank tests, which make intervals of a shift.

A test of rank sums (Mann & Whitney 1947) compares two independent samples; one of signed ranks
(Wilcoxon 1945) compares pairs. Inverted, a test leaves out the extreme differences on either side:
how many, this module computes, exactly for small samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist

EXACT_UP_TO = 50
"""Values per side up to which a distribution is counted exactly; above, the normal one stands."""


def rank_sum_cutoff(first: int, second: int, tail: float) -> int:
    """Number of extreme values of the Mann-Whitney statistic that have at most this probability.

    Args:
        first: size of the first sample.
        second: size of the second sample.
        tail: probability, below 0.5.
    """
    if max(first, second) <= EXACT_UP_TO:
        return _cutoff(rank_sum_counts(first, second), math.comb(first + second, first), tail)
    product = first * second
    return _normal_cutoff(product / 2, math.sqrt(product * (first + second + 1) / 12), tail)


def signed_rank_cutoff(count: int, tail: float) -> int:
    """Number of extreme values of Wilcoxon's statistic that have at most this probability.

    Args:
        count: number of pairs.
        tail: probability, below 0.5.
    """
    if count <= EXACT_UP_TO:
        return _cutoff(signed_rank_counts(count), 2**count, tail)
    deviation = math.sqrt(count * (count + 1) * (2 * count + 1) / 24)
    return _normal_cutoff(count * (count + 1) / 4, deviation, tail)


@cache
def rank_sum_counts(first: int, second: int) -> tuple[int, ...]:
    """In how many orders of two samples the Mann-Whitney statistic is 0, 1, 2, ...

    The coefficients of the Gaussian binomial, by dividing products of (1 - q^k).
    """
    counts = [0] * (first * second + 1)
    counts[0] = 1
    for k in range(1, first + 1):
        for u in range(len(counts) - 1, second + k - 1, -1):
            counts[u] -= counts[u - second - k]
        for u in range(k, len(counts)):
            counts[u] += counts[u - k]
    return tuple(counts)


@cache
def signed_rank_counts(count: int) -> tuple[int, ...]:
    """For how many signs of `count` ranks the sum of the positive ones is 0, 1, 2, ..."""
    counts = [1]
    for rank in range(1, count + 1):
        longer = counts + [0] * rank
        for total, ways in enumerate(counts):
            longer[total + rank] += ways
        counts = longer
    return tuple(counts)


def _cutoff(counts: Sequence[int], total: int, tail: float) -> int:
    """How many of a statistic's smallest values together have at most this probability."""
    below, cumulated = 0, 0
    for count in counts:
        cumulated += count
        if cumulated > tail * total:
            break
        below += 1
    return below


def _normal_cutoff(mean: float, deviation: float, tail: float) -> int:
    return max(0, math.floor(mean - NormalDist().inv_cdf(1 - tail) * deviation))
