"""What can be said of a difference between two sets of repeated measurements, and how surely.

Pure functions of numbers. Times are compared by ranks: a machine that is shared makes some runs
several times as long as others, and a rank does not care by how much. Their intervals are exact:
where one side's distribution is the other's, moved (by turns: where differences are symmetric),
they cover at least as often as they say, also for five runs a side. What cannot be said from so
few is None.

Sources: Hodges & Lehmann 1963 (estimate of a shift), Mann & Whitney 1947 and Wilcoxon 1945 (rank
tests, inverted), Hollander, Wolfe & Chicken 2014, chapters 3 and 4 (the intervals), Welch 1947
(means), Wilson 1927 (shares). docs/statistics.md has the why of each and a worked example.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement
from statistics import NormalDist, fmean, median, stdev, variance

# Student's t at 0.975, by degrees of freedom from 1 on.
_T_975 = (
    12.70620, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.30600, 2.26216, 2.22814,
    2.20099, 2.17881, 2.16037, 2.14479, 2.13145, 2.11991, 2.10982, 2.10092, 2.09302, 2.08596,
    2.07961, 2.07387, 2.06866, 2.06390, 2.05954, 2.05553, 2.05183, 2.04841, 2.04523, 2.04227,
)  # fmt: skip
_Z_975 = 1.959963984540054
"""The same quantile of the normal distribution, which Student's approaches."""

EXACT_UP_TO = 50
"""Values a side up to which the ranks' distribution is counted out; beyond, it is normal enough."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A difference between two sides."""

    value: float
    """The most plausible one."""
    low: float | None
    """It is no less than this: one end of the interval. None: too few values to say."""
    high: float | None
    """It is no more than this."""

    def negated(self) -> Estimate:
        """The same seen from the other side."""
        low, high = (None if end is None else -end for end in (self.high, self.low))
        return Estimate(-self.value, low, high)

    def as_ratio(self) -> Estimate:
        """A difference of logarithms as the ratio that it stands for."""
        low, high = (None if end is None else _bounded_exp(end) for end in (self.low, self.high))
        return Estimate(_bounded_exp(self.value), low, high)


def _bounded_exp(logarithm: float) -> float:
    return math.exp(max(-700.0, min(700.0, logarithm)))  # beyond, it is no float


def location_shift(first: Sequence[float], second: Sequence[float], tail: float) -> Estimate:
    """How much larger `second` is than `first`, of two independent samples, by ranks.

    Args:
        first: one or more finite values.
        second: likewise.
        tail: probability, below 0.5, that the truth lies beyond either end of the interval.
    """
    differences = sorted(b - a for a in first for b in second)
    outside = _outside(_rank_sums(len(first), len(second)), len(first), len(second), tail)
    return _interval(differences, outside)


def paired_location_shift(differences: Sequence[float], tail: float) -> Estimate:
    """The centre of differences within pairs, by signed ranks; they are taken to be symmetric.

    Args:
        differences: one or more finite values.
        tail: as for `location_shift`.
    """
    averages = sorted((a + b) / 2 for a, b in combinations_with_replacement(differences, 2))
    count = len(differences)
    if count <= EXACT_UP_TO:
        outside = _least(_signed_ranks(count), 2**count, tail)
    else:
        spread = math.sqrt(count * (count + 1) * (2 * count + 1) / 24)
        outside = _normal_least(count * (count + 1) / 4, spread, tail)
    return _interval(averages, outside)


def mean_difference(first: Sequence[float], second: Sequence[float], tail: float) -> Estimate:
    """Mean of `second` less mean of `first`, by Welch's t: for what is nearly normal, as accuracy.

    Args:
        first: one or more finite values; below two on either side there is no interval.
        second: likewise.
        tail: as for `location_shift`.
    """
    value = fmean(second) - fmean(first)
    if min(len(first), len(second)) < 2:
        return Estimate(value, None, None)
    of_first, of_second = variance(first) / len(first), variance(second) / len(second)
    error = of_first + of_second
    if error == 0:
        return Estimate(value, value, value)
    part = of_first / error
    degrees = 1 / (part**2 / (len(first) - 1) + (1 - part) ** 2 / (len(second) - 1))
    half = t_quantile(degrees, 1 - tail) * math.sqrt(error)
    return Estimate(value, value - half, value + half)


def paired_mean_difference(differences: Sequence[float], tail: float) -> Estimate:
    """Mean of differences within pairs, by Student's t (1908).

    Args:
        differences: one or more finite values; of one there is no interval.
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


def ratio_spread(first: Sequence[float], second: Sequence[float], paired: bool) -> float | None:
    """Standard deviation of the difference of one run a side; None below two."""
    if min(len(first), len(second)) < 2:
        return None
    if paired:
        return stdev([b - a for a, b in zip(first, second, strict=True)])
    return math.sqrt(variance(first) + variance(second))


def runs_needed(deviation: float, difference: float, tail: float, power: float) -> int | None:
    """Runs a side by which such a difference would be established, with that probability.

    By the normal approximation, divided by the rank test's efficiency for normal data, 3/pi
    (Lehmann 1975).

    Args:
        deviation: what `ratio_spread` says.
        difference: to be told from none.
        tail: as for `location_shift`.
        power: probability, above 0.5, to see it.

    Returns:
        2 or more; None where no number of runs that could be made would do.
    """
    z = NormalDist().inv_cdf(1 - tail) + NormalDist().inv_cdf(power)
    try:
        count = math.ceil((deviation * z / difference) ** 2 * math.pi / 3)
    except (OverflowError, ZeroDivisionError):
        return None
    return max(2, count) if count < MOST_ADVISED else None


MOST_ADVISED = 10_000


def fisher_exact(base: int, of_base: int, new: int, of_new: int) -> float:
    """Probability of so few successes on the new side, or fewer, if both had the same chance.

    Fisher's exact test, one-sided.
    """
    total, successes = of_base + of_new, base + new
    ways = math.comb(total, of_new)
    return (
        sum(
            math.comb(successes, k) * math.comb(total - successes, of_new - k)
            for k in range(max(0, of_new - (total - successes)), new + 1)
        )
        / ways
    )


def fewest_runs(tail: float, paired: bool) -> int:
    """Values a side, or pairs, below which ranks have no interval of that tail."""
    count = 1
    while (2**count if paired else math.comb(2 * count, count)) * tail < 1:
        count += 1
    return count


def t_quantile_975(degrees: int) -> float:
    """Student's t that 97.5 % of the distribution lies below.

    From a table up to 30 degrees of freedom; above, the Cornish-Fisher expansion about the
    normal quantile (Abramowitz & Stegun 26.7.5) to the third order, whose error is below 1e-6.

    Args:
        degrees: of freedom, 1 or more.
    """
    if degrees <= len(_T_975):
        return _T_975[degrees - 1]
    z = _Z_975
    return (
        z
        + (z**3 + z) / (4 * degrees)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3)
    )


def t_above(degrees: int, tail: float) -> float:
    """Student's t that so much of the distribution lies above; without scipy where `tail` is usual.

    Reports are read more often than they are compared, and want intervals of 95 % alone.
    """
    return t_quantile_975(degrees) if tail == 0.025 else t_quantile(degrees, 1 - tail)


def t_quantile(degrees: float, probability: float) -> float:
    """Student's t below which that share of the distribution lies."""
    # Here, because its import takes longer than reading a folder of records.
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))


def find_outliers(values: Sequence[float]) -> list[float]:
    """Those that lie far from the others: hyperfine's rule, |x - median| > 14.8 MAD."""
    if not values:
        return []
    middle = median(values)
    spread = median(abs(value - middle) for value in values)
    return [value for value in values if spread > 0 and abs(value - middle) / spread > 14.826]


FEWEST_FOR_DRIFT = 8
"""Values below which nothing is said of drift."""
FEWEST_FOR_GROUPS = 10
"""Values below which nothing is said of groups."""


def find_two_groups(values: Sequence[float]) -> tuple[float, float] | None:
    """The medians of two groups into which values fall; None where they do not.

    Two groups are twice as far apart as either is wide, and each is a quarter of the values or
    more. One group looks so less than once in a hundred times, whatever its shape
    (simulated: tests/stats/test_intervals.py).
    """
    if len(values) < FEWEST_FOR_GROUPS:
        return None
    ordered = sorted(values)
    least = math.ceil(len(ordered) / 4)
    for split in range(least, len(ordered) - least + 1):
        low, high = ordered[:split], ordered[split:]
        if high[0] - low[-1] > 2 * max(low[-1] - low[0], high[-1] - high[0]):
            return median(low), median(high)
    return None


def _interval(ordered: Sequence[float], outside: int) -> Estimate:
    """The median of `ordered`, and its ends without `outside` values at each side."""
    value = median(ordered)
    if outside == 0:
        return Estimate(value, None, None)
    return Estimate(value, ordered[outside - 1], ordered[-outside])


def _outside(counts: Sequence[int], first: int, second: int, tail: float) -> int:
    if max(first, second) <= EXACT_UP_TO:
        return _least(counts, math.comb(first + second, first), tail)
    product = first * second
    return _normal_least(product / 2, math.sqrt(product * (first + second + 1) / 12), tail)


def _least(counts: Sequence[int], total: int, tail: float) -> int:
    """How many of a rank statistic's least values are together no likelier than `tail`."""
    below, seen = 0, 0
    for count in counts:
        seen += count
        if seen > tail * total:
            break
        below += 1
    return below


def _normal_least(mean: float, deviation: float, tail: float) -> int:
    return max(0, math.floor(mean - NormalDist().inv_cdf(1 - tail) * deviation))


@cache
def _rank_sums(first: int, second: int) -> tuple[int, ...]:
    """In how many orders of two samples the Mann-Whitney statistic is 0, 1, 2, ...

    The coefficients of the Gaussian binomial, by dividing products of (1 - q^k).
    """
    if max(first, second) > EXACT_UP_TO:
        return ()
    counts = [0] * (first * second + 1)
    counts[0] = 1
    for k in range(1, first + 1):
        for u in range(len(counts) - 1, second + k - 1, -1):
            counts[u] -= counts[u - second - k]
        for u in range(k, len(counts)):
            counts[u] += counts[u - k]
    return tuple(counts)


@cache
def _signed_ranks(count: int) -> tuple[int, ...]:
    """For how many signs of `count` ranks the sum of the positive ones is 0, 1, 2, ..."""
    counts = [1]
    for rank in range(1, count + 1):
        longer = counts + [0] * rank
        for total, ways in enumerate(counts):
            longer[total + rank] += ways
        counts = longer
    return tuple(counts)
