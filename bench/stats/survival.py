"""Times to the target where some runs never reached it: those are *censored*, not dropped.

A run that missed the target shows that its time is longer than its training. Leaving it out would
make the luckiest recipe the fastest. Pure functions of numbers.

Sources: Kaplan & Meier 1958; Klein & Moeschberger 2003, sections 4.2 to 4.5 (Greenwood's variance,
the log-log intervals, the restricted mean); Brookmeyer & Crowley 1982 (interval of the median).
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist, stdev

from bench.stats.intervals import Estimate, proportion_interval
from bench.stats.student_t import t_above


@dataclass(frozen=True, slots=True)
class CensoredTime:
    """The time to target of one run, or the time that it is longer than."""

    seconds: float
    """Seconds to the target or, where the run missed it, to the run's end."""
    reached: bool
    """Whether the run reached the target."""


@dataclass(frozen=True, slots=True)
class SurvivalStep:
    """The share of runs that have not reached the target, from one time to the next."""

    seconds: float
    """Time at which the share begins to hold: at least one run reached the target then."""
    survival: float
    """Share of runs that have not reached the target, 0 to 1."""
    greenwood: float
    """Greenwood's sum, the relative variance of `survival`; infinite where `survival` is 0."""
    at_risk: int
    """Number of runs that were training just before, without the target."""
    reached: int
    """Number of those runs that reached the target at that time."""


def kaplan_meier(times: Sequence[CensoredTime]) -> list[SurvivalStep]:
    """The product-limit estimate, with a step for each time at which a run reached the target."""
    steps: list[SurvivalStep] = []
    survival, greenwood = 1.0, 0.0
    ordered = sorted(time.seconds for time in times)
    arrivals = Counter(time.seconds for time in times if time.reached)
    for seconds, reached in sorted(arrivals.items()):
        at_risk = len(ordered) - bisect_left(ordered, seconds)
        survival *= 1 - reached / at_risk
        remaining = at_risk - reached
        greenwood = greenwood + reached / (at_risk * remaining) if remaining else math.inf
        steps.append(SurvivalStep(seconds, survival, greenwood, at_risk, reached))
    return steps


FEWEST_FOR_ENDS = 6
"""Number of runs below which the median's interval would cover the truth too seldom."""


def median_time(times: Sequence[CensoredTime], tail: float = 0.025) -> Estimate | None:
    """The time at which half of the runs have reached the target; None where fewer ever did.

    Args:
        times: any number of times.
        tail: probability that the truth lies beyond either end. An end that the data do not
            bound is None.
    """
    steps = kaplan_meier(times)
    value = next((step.seconds for step in steps if step.survival <= 0.5), None)
    if value is None:
        return None
    if len(times) < FEWEST_FOR_ENDS:
        return Estimate(value, None, None)
    z = NormalDist().inv_cdf(1 - tail)
    # Where all runs have reached the target the band has no upper end.
    bounded = [step for step in steps if step.survival > 0]
    low = next((step.seconds for step in steps if _band(step, -z) <= 0.5), None)
    high = next((step.seconds for step in bounded if _band(step, z) <= 0.5), None)
    return Estimate(value, low, high)


def _band(step: SurvivalStep, z: float) -> float:
    """The end of the pointwise log-log interval of survival, z standard errors up."""
    if step.survival in (0.0, 1.0):
        return step.survival
    error = math.sqrt(step.greenwood) / math.log(step.survival)
    return float(step.survival ** math.exp(z * error))


def restricted_mean(times: Sequence[CensoredTime], horizon: float, tail: float = 0.025) -> Estimate:
    """Mean time to the target of runs that may take `horizon` seconds: the area under survival.

    Args:
        times: any number of times; the horizon should be no later than the last of them.
        horizon: seconds; every run counts as no longer than this.
        tail: as for `median_time`.
    """
    steps = [step for step in kaplan_meier(times) if step.seconds < horizon]
    edges = [0.0, *(step.seconds for step in steps), horizon]
    heights = [1.0, *(step.survival for step in steps)]
    areas = [(b - a) * h for (a, b), h in zip(pairwise(edges), heights, strict=True)]
    mean = math.fsum(areas)
    variance = 0.0
    for index, step in enumerate(steps, start=1):
        remaining = step.at_risk - step.reached
        if remaining:
            later = math.fsum(areas[index:])
            variance += later * later * step.reached / (step.at_risk * remaining)
    if not steps or variance == 0:
        return Estimate(mean, None, None)
    # Student's t, as for means: normal quantiles cover the truth too seldom below twenty runs.
    degrees = max(1, sum(step.reached for step in steps) - 1)
    half = t_above(degrees, tail) * math.sqrt(variance)
    return Estimate(mean, mean - half, mean + half)


def expected_time(times: Sequence[CensoredTime]) -> float | None:
    """Seconds spent per run that reached the target; None where no run did.

    The average time to the target if training starts again after each miss: total time divided by
    successes (the "expected time to solution" of sweeps).
    """
    reached = sum(time.reached for time in times)
    return sum(time.seconds for time in times) / reached if reached else None


def expected_time_interval(times: Sequence[CensoredTime], tail: float = 0.025) -> Estimate | None:
    """`expected_time` with its interval; None where no run reached the target.

    It is the mean of the runs that reached the target, plus the time of the misses per success.
    The interval of the mean is Student's t, that of the misses Wilson's; the two are combined by
    squares (MOVER, Zou & Donner 2008). Where no run missed, a miss counts as long as the longest
    run. An end is None below `FEWEST_FOR_COST` runs.
    """
    value = expected_time(times)
    if value is None:
        return None
    if len(times) < FEWEST_FOR_COST or not 0 < value < math.inf:
        return Estimate(value, None, None)
    reached = [time.seconds for time in times if time.reached]
    missed = [time.seconds for time in times if not time.reached]
    seconds_per_miss = sum(missed) / len(missed) if missed else max(reached)
    miss_share = proportion_interval(len(missed), len(times), tail)
    misses_per_success = len(missed) / len(reached)
    deviation = stdev(reached) if len(reached) > 1 else 0.0
    half = t_above(max(1, len(reached) - 1), tail) * deviation / math.sqrt(len(reached))
    below, above = (
        math.hypot(half, seconds_per_miss * (share / (1 - share) - misses_per_success))
        for share in (miss_share.low or 0.0, miss_share.high or 0.0)
    )
    return Estimate(value, max(0.0, value - below), value + above)


FEWEST_FOR_COST = 5
"""Number of runs below which the time per success has no interval."""
RESAMPLES = 2000
FEWEST_FOR_BOOTSTRAP = 10
"""Number of runs per side below which resamples are too similar for an interval."""


def expected_time_ratio(
    base: Sequence[CensoredTime], new: Sequence[CensoredTime], tail: float
) -> Estimate | None:
    """Ratio of the expected times, new to base, by the percentile bootstrap (Efron 1979).

    Runs are drawn within each side, by a generator with a fixed seed: the same records give the
    same interval. It is approximate: widened as Student's t is wider than the normal distribution
    (Hesterberg 2015, "expanded percentile"), it is wrong 5 to 7 times in a hundred where it should
    be 5 times. None where a side never reached the target; an end is None where resamples do not
    bound it, or where there are few runs.
    """
    base_time, new_time = expected_time(base), expected_time(new)
    if base_time is None or new_time is None:
        return None
    fewest = min(len(base), len(new))
    if fewest < FEWEST_FOR_BOOTSTRAP or tail * RESAMPLES < 5:
        return Estimate(new_time / base_time, None, None)
    wider = t_above(fewest - 1, tail) / NormalDist().inv_cdf(1 - tail)
    wider *= math.sqrt(fewest / (fewest - 1))
    generator = random.Random(0)
    ratios = []
    for _ in range(RESAMPLES):
        below = expected_time(generator.choices(base, k=len(base)))
        above = expected_time(generator.choices(new, k=len(new)))
        if above is None:
            ratios.append(math.inf)
        else:
            ratios.append(0.0 if below is None else above / below)
    ratios.sort()
    outside = math.floor(tail * RESAMPLES)
    value = new_time / base_time
    low, high = (
        value * (end / value) ** wider if 0 < end < math.inf else None
        for end in (ratios[outside], ratios[-1 - outside])
    )
    return Estimate(value, low, high)
