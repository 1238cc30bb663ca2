"""Attempts at the target, some of which miss it: those are failures, and they count.

A run that trained its whole schedule and missed the target is no observation that was cut off: more
time was not to be had. Leaving it out would make the luckiest recipe the fastest. So the median
counts it as infinitely long (`bench.stats.order_statistics`); here are the two summaries that count
the seconds it took: those spent for each success, and the mean with every run limited to the
schedule. Pure functions of numbers.

Kaplan and Meier's estimate is not used. It is for runs that were stopped before their schedule
ended, which no summary includes; for finished runs its median covers the truth too seldom
(tests/stats/test_attempts.py).

Sources: Zou & Donner 2008 (MOVER, an interval of two estimates combined), Wilson 1927 (shares),
Efron 1979 (bootstrap).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist, fmean, stdev

from bench.stats.intervals import Estimate, proportion_interval
from bench.stats.student_t import t_above
from bench.stats.sums import exact_sum


@dataclass(frozen=True, slots=True)
class Attempt:
    """One finished run: its time to target, or the time that it took to miss it."""

    seconds: float
    """Seconds to the target or, where the run missed it, to the run's end."""
    reached: bool
    """Whether the run reached the target."""


def restricted_mean(times: Sequence[Attempt], horizon: float, tail: float = 0.025) -> Estimate:
    """Mean time to the target if every run gets `horizon` seconds; a miss counts as the horizon.

    The interval combines that of the mean of the runs that reached the target (Student's t) and
    that of the share of misses (Wilson's) by squares (MOVER). Student's t of all values would not
    know of misses that are rare and did not occur.

    Args:
        times: one or more.
        horizon: seconds until the end of the schedule; no run counts as longer.
        tail: probability that the truth lies beyond either end. An end is None below
            `FEWEST_FOR_COST` runs, or where fewer than two runs reached the target.
    """
    reached = [min(time.seconds, horizon) for time in times if time.reached]
    misses = len(times) - len(reached)
    mean = (exact_sum(reached) + misses * horizon) / len(times)
    if len(times) < FEWEST_FOR_COST or len(reached) < 2 or not 0 < mean < math.inf:
        return Estimate(mean, None, None)
    share = proportion_interval(misses, len(times), tail)
    half = (1 - share.value) * _half_width(reached, tail)
    seconds_lost = horizon - fmean(reached)
    below, above = (
        math.hypot(half, seconds_lost * ((end or 0.0) - share.value))
        for end in (share.low, share.high)
    )
    return Estimate(mean, max(0.0, mean - below), min(horizon, mean + above))


def seconds_per_success(times: Sequence[Attempt]) -> float | None:
    """Seconds spent per run that reached the target; None where no run did.

    The average time to the target if training starts again after each miss: total time divided by
    successes (the "expected time to solution" of sweeps).
    """
    successes = sum(time.reached for time in times)
    return exact_sum(time.seconds for time in times) / successes if successes else None


def seconds_per_success_interval(times: Sequence[Attempt], tail: float = 0.025) -> Estimate | None:
    """`seconds_per_success` with its interval; None where no run reached the target.

    It is the mean of the runs that reached the target, plus the time of the misses per success.
    The interval of the mean is Student's t, that of the misses Wilson's; the two are combined by
    squares (MOVER, Zou & Donner 2008). Where no run missed, a miss counts as long as the longest
    run. An end is None below `FEWEST_FOR_COST` runs, or where fewer than two reached the target.
    """
    value = seconds_per_success(times)
    if value is None:
        return None
    successes = sum(time.reached for time in times)
    if len(times) < FEWEST_FOR_COST or successes < 2 or not 0 < value < math.inf:
        return Estimate(value, None, None)
    reached = [time.seconds for time in times if time.reached]
    missed = [time.seconds for time in times if not time.reached]
    seconds_per_miss = exact_sum(missed) / len(missed) if missed else max(reached)
    miss_share = proportion_interval(len(missed), len(times), tail)
    misses_per_success = len(missed) / len(reached)
    half = _half_width(reached, tail)
    below, above = (
        math.hypot(half, seconds_per_miss * (share / (1 - share) - misses_per_success))
        for share in (miss_share.low or 0.0, miss_share.high or 0.0)
    )
    return Estimate(value, max(0.0, value - below), value + above)


def _half_width(seconds: Sequence[float], tail: float) -> float:
    """Half of the width of Student's interval of the mean of two values or more."""
    return t_above(len(seconds) - 1, tail) * stdev(seconds) / math.sqrt(len(seconds))


FEWEST_FOR_COST = 5
"""Number of runs below which the time per success and the restricted mean have no interval."""
RESAMPLES = 2000
_BYTE_VALUES = 256
_Pair = tuple[float, bool]
"""Seconds and whether they reached the target, of an attempt."""
FEWEST_FOR_BOOTSTRAP = 10
"""Number of runs per side below which resamples are too similar for an interval."""


def seconds_per_success_ratio(
    base: Sequence[Attempt], new: Sequence[Attempt], tail: float
) -> Estimate | None:
    """Ratio of the expected times, new to base, by the percentile bootstrap (Efron 1979).

    Runs are drawn within each side, by generators with fixed seeds: the same records give the
    same interval. It is approximate: widened as Student's t is wider than the normal distribution
    (Hesterberg 2015, "expanded percentile"), it is wrong 5 to 7 times in a hundred where it should
    be 5 times. None where a side never reached the target; an end is None where resamples do not
    bound it, or where there are few runs.
    """
    base_time, new_time = seconds_per_success(base), seconds_per_success(new)
    if base_time is None or new_time is None:
        return None
    fewest = min(len(base), len(new))
    if fewest < FEWEST_FOR_BOOTSTRAP or tail * RESAMPLES < 5:
        return Estimate(new_time / base_time, None, None)
    wider = _half_width_of_ratio(fewest, tail) / NormalDist().inv_cdf(1 - tail)
    ratios = _resampled_ratios(
        *(tuple((t.seconds, t.reached) for t in side) for side in (base, new))
    )
    outside = math.floor(tail * RESAMPLES)
    value = new_time / base_time
    low, high = (
        value * (end / value) ** wider if 0 < end < math.inf else None
        for end in (ratios[outside], ratios[-1 - outside])
    )
    return Estimate(value, low, high)


def ratio_spread(ratio: Estimate, runs: int, tail: float) -> float | None:
    """The spread that `bench.stats.sample_size` asks for, as an interval of the ratio implies it.

    Args:
        ratio: from `seconds_per_success_ratio`.
        runs: number of runs of the smaller side.
        tail: that of the interval.

    Returns:
        Standard deviation of the logarithm of the ratio, if each side had one run; None without an
        interval.
    """
    if ratio.low is None or ratio.high is None:
        return None
    half = math.log(ratio.high / ratio.low) / 2
    return half / _half_width_of_ratio(runs, tail) * math.sqrt(runs)


def _half_width_of_ratio(runs: int, tail: float) -> float:
    """Half of the interval's width, as a multiple of the standard deviation of the logarithm."""
    return t_above(runs - 1, tail) * math.sqrt(runs / (runs - 1))


@lru_cache(maxsize=4)  # most benchmarks have one of a few numbers of runs
def _drawn(size: int, seed: int) -> Sequence[int]:
    """Which of `size` attempts each resample has, one resample after the other, from 0."""
    generator, count = random.Random(seed), RESAMPLES * size
    if size > _BYTE_VALUES:
        return tuple(generator.choices(range(size), k=count))
    # The remainder of a random byte: a tenth of the time of `choices`. The last values, which would
    # make some remainders more likely than others, are dropped.
    remainders = bytes(value % size for value in range(_BYTE_VALUES))
    dropped = bytes(range(_BYTE_VALUES - _BYTE_VALUES % size, _BYTE_VALUES))
    drawn = b""
    while len(drawn) < count:
        drawn += generator.randbytes(count).translate(remainders, dropped)
    return drawn[:count]


@lru_cache(maxsize=16)  # one side may be compared with many, and an interval asks for two tails
def _resampled(side: tuple[_Pair, ...], seed: int) -> Sequence[float | None]:
    """Seconds per success of as many attempts, drawn with replacement, `RESAMPLES` times."""
    size = len(side)
    drawn = _drawn(size, seed)
    seconds, reached = zip(*side, strict=True)
    # All that was drawn is looked up at once: a call for each resample takes half as long again.
    all_seconds = list(map(seconds.__getitem__, drawn))
    all_reached = list(map(reached.__getitem__, drawn))
    costs = []
    for resample in (slice(first, first + size) for first in range(0, len(drawn), size)):
        successes = sum(all_reached[resample])
        costs.append(exact_sum(all_seconds[resample]) / successes if successes else None)
    return tuple(costs)


@lru_cache(maxsize=16)
def _resampled_ratios(base: tuple[_Pair, ...], new: tuple[_Pair, ...]) -> Sequence[float]:
    """Ratios of the expected times of resamples, new to base, in rising order."""
    ratios = []
    for below, above in zip(_resampled(base, 0), _resampled(new, 1), strict=True):
        if above is None:
            ratios.append(math.inf)
        else:
            ratios.append(0.0 if below is None else above / below)
    return tuple(sorted(ratios))
