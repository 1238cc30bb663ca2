"""Differences between two sets of repeated measurements, each with its interval.

Pure functions of numbers. Times are compared by ranks: a machine that others share makes some runs
several times as long as others, and a rank does not depend on by how much. The intervals are exact:
where one side's distribution is the other's, shifted (or, interleaved, where differences are
symmetric), they cover the truth at least as often as they say, also for five runs per side. What
so few runs cannot show is None.

Sources: Hodges & Lehmann 1963 (estimate of a shift), Mann & Whitney 1947 and Wilcoxon 1945 (rank
tests, inverted), Hollander, Wolfe & Chicken 2014, chapters 3 and 4 (the intervals), Welch 1947
(means), Wilson 1927 (shares), Zou & Donner 2008 (MOVER: estimates combined). docs/statistics.md has
the reason for each and a worked example.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from statistics import NormalDist, fmean, median, stdev, variance

from bench.stats.rank_tests import rank_sum_cutoff, signed_rank_cutoff
from bench.stats.student_t import t_quantile


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value that was estimated, with its interval."""

    value: float
    """The most plausible value."""
    low: float | None
    """Lower end of the interval; None where too few values determine it."""
    high: float | None
    """Upper end of the interval; None where too few values determine it."""

    def negated(self) -> Estimate:
        """The negative of the value, with its interval."""
        low, high = (None if end is None else -end for end in (self.high, self.low))
        return Estimate(-self.value, low, high)

    def as_ratio(self) -> Estimate:
        """The ratio that a difference of logarithms stands for, with its interval."""
        low, high = (None if end is None else _bounded_exp(end) for end in (self.low, self.high))
        return Estimate(_bounded_exp(self.value), low, high)


def _bounded_exp(logarithm: float) -> float:
    return math.exp(max(-700.0, min(700.0, logarithm)))  # a float holds nothing beyond


def location_shift(first: Sequence[float], second: Sequence[float], tail: float) -> Estimate:
    """How much larger `second` is than `first`, of two independent samples, by ranks.

    Args:
        first: one or more finite values.
        second: one or more finite values.
        tail: probability, below 0.5, that the truth lies beyond either end of the interval.
    """
    differences = sorted(b - a for a in first for b in second)
    return _trimmed(differences, rank_sum_cutoff(len(first), len(second), tail))


def paired_location_shift(differences: Sequence[float], tail: float) -> Estimate:
    """The centre of differences within pairs, by signed ranks; assumes that they are symmetric.

    Args:
        differences: one or more finite values.
        tail: as for `location_shift`.
    """
    averages = sorted((a + b) / 2 for a, b in combinations_with_replacement(differences, 2))
    return _trimmed(averages, signed_rank_cutoff(len(differences), tail))


def mean_difference(first: Sequence[float], second: Sequence[float], tail: float) -> Estimate:
    """Mean of `second` minus mean of `first`, by Welch's t: for nearly normal values (accuracy).

    Args:
        first: one or more finite values; below two on either side there is no interval.
        second: one or more finite values.
        tail: as for `location_shift`.
    """
    value = fmean(second) - fmean(first)
    if min(len(first), len(second)) < 2:
        return Estimate(value, None, None)
    first_error, second_error = variance(first) / len(first), variance(second) / len(second)
    error = first_error + second_error
    if error == 0:
        return Estimate(value, value, value)
    share = first_error / error
    degrees = 1 / (share**2 / (len(first) - 1) + (1 - share) ** 2 / (len(second) - 1))
    half = t_quantile(degrees, 1 - tail) * math.sqrt(error)
    return Estimate(value, value - half, value + half)


def paired_mean_difference(differences: Sequence[float], tail: float) -> Estimate:
    """Mean of differences within pairs, by Student's t (1908).

    Args:
        differences: one or more finite values; for one there is no interval.
        tail: as for `location_shift`.
    """
    value = fmean(differences)
    if len(differences) < 2:
        return Estimate(value, None, None)
    error = stdev(differences) / math.sqrt(len(differences))
    half = t_quantile(len(differences) - 1, 1 - tail) * error if error else 0.0
    return Estimate(value, value - half, value + half)


def proportion_interval(successes: int, count: int, tail: float = 0.025) -> Estimate:
    """A share of successes with Wilson's interval.

    Args:
        successes: 0 to `count`.
        count: 1 or more.
        tail: as for `location_shift`.
    """
    z = NormalDist().inv_cdf(1 - tail)
    p = successes / count
    centre = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(p * (1 - p) / count + z * z / (4 * count**2))
    return Estimate(p, max(0.0, centre - half), min(1.0, centre + half))


def product(factors: Sequence[Estimate], divisors: Sequence[Estimate] = ()) -> Estimate:
    """The product of independent estimates, divided by others, with its interval.

    The distances from each logarithm to its ends are combined by squares (MOVER).

    Args:
        factors: one or more positive estimates.
        divisors: positive estimates. Without one end of any estimate, the product has no ends.
    """
    values = [one.value for one in factors], [one.value for one in divisors]
    value = math.prod(values[0]) / math.prod(values[1])
    below = above = 0.0
    for one, is_divisor in [*((f, False) for f in factors), *((d, True) for d in divisors)]:
        if one.low is None or one.high is None or one.low <= 0:
            return Estimate(value, None, None)
        down, up = math.log(one.value / one.low), math.log(one.high / one.value)
        if is_divisor:
            down, up = up, down
        below, above = math.hypot(below, down), math.hypot(above, up)
    return Estimate(value, value * math.exp(-below), value * math.exp(above))


def fisher_exact(base: int, base_count: int, new: int, new_count: int) -> float:
    """Probability of at most `new` successes on the new side if both sides have the same chance.

    Fisher's exact test, one-sided.

    Args:
        base: successes on the base's side, of `base_count` runs.
        base_count: runs on the base's side.
        new: successes on the new side, of `new_count` runs.
        new_count: runs on the new side.
    """
    total, successes = base_count + new_count, base + new
    failures = total - successes
    ways = sum(
        math.comb(successes, k) * math.comb(failures, new_count - k)
        for k in range(max(0, new_count - failures), new + 1)
    )
    return ways / math.comb(total, new_count)


def _trimmed(ordered: Sequence[float], cutoff: int) -> Estimate:
    """The median of ordered values; the interval's ends leave out `cutoff` values at each end."""
    value = median(ordered)
    if cutoff == 0:
        return Estimate(value, None, None)
    return Estimate(value, ordered[cutoff - 1], ordered[-cutoff])
