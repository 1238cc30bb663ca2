"""Times to the target where some runs never reached it: those are *censored*, not dropped.

A run that missed says that its time is longer than it was trained. Leaving it out would make the
luckiest recipe the fastest. Pure functions of numbers.

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
    """One run, as far as the target is concerned."""

    seconds: float
    """To the target, or, where it was not reached, to the end."""
    reached: bool


@dataclass(frozen=True, slots=True)
class SurvivalStep:
    """The share of runs that have not reached the target, from one time to the next."""

    seconds: float
    """From here on; at least one run reached the target here."""
    survival: float
    """0 to 1."""
    greenwood: float
    """Greenwood's sum, the relative variance of `survival`; infinite where that is 0."""
    at_risk: int
    """Runs that were still on their way just before."""
    reached: int
    """Of those, how many reached it here."""


def kaplan_meier(trials: Sequence[CensoredTime]) -> list[SurvivalStep]:
    """The product-limit estimate, a step for each time at which a run reached the target."""
    steps: list[SurvivalStep] = []
    survival, greenwood = 1.0, 0.0
    everyone = sorted(trial.seconds for trial in trials)
    arrivals = Counter(trial.seconds for trial in trials if trial.reached)
    for seconds, reached in sorted(arrivals.items()):
        at_risk = len(everyone) - bisect_left(everyone, seconds)
        survival *= 1 - reached / at_risk
        left = at_risk - reached
        greenwood = greenwood + reached / (at_risk * left) if left else math.inf
        steps.append(SurvivalStep(seconds, survival, greenwood, at_risk, reached))
    return steps


FEWEST_FOR_ENDS = 6
"""Runs below which the median's interval would cover too seldom."""


def median_time(trials: Sequence[CensoredTime], tail: float = 0.025) -> Estimate | None:
    """When half of the runs have reached the target; None where fewer than half ever did.

    Args:
        trials: any number.
        tail: probability that the truth lies beyond either end. An end that the data do not
            bound is None.
    """
    steps = kaplan_meier(trials)
    value = next((step.seconds for step in steps if step.survival <= 0.5), None)
    if value is None:
        return None
    if len(trials) < FEWEST_FOR_ENDS:
        return Estimate(value, None, None)
    z = NormalDist().inv_cdf(1 - tail)
    # Where all have reached it the band has no upper end.
    bounded = [step for step in steps if step.survival > 0]
    low = next((step.seconds for step in steps if _band(step, -z) <= 0.5), None)
    high = next((step.seconds for step in bounded if _band(step, z) <= 0.5), None)
    return Estimate(value, low, high)


def _band(step: SurvivalStep, z: float) -> float:
    """The end of the pointwise log-log interval of survival, z standard errors up."""
    if step.survival in (0.0, 1.0):
        return step.survival
    spread = math.sqrt(step.greenwood) / math.log(step.survival)
    return float(step.survival ** math.exp(z * spread))


def restricted_mean(
    trials: Sequence[CensoredTime], horizon: float, tail: float = 0.025
) -> Estimate:
    """Mean time to the target of runs that are given `horizon` seconds: the area under survival.

    Args:
        trials: any number; the horizon should be no later than the last of them.
        horizon: seconds; every run counts as no longer than this.
        tail: as for `median_time`.
    """
    steps = [step for step in kaplan_meier(trials) if step.seconds < horizon]
    times = [0.0, *(step.seconds for step in steps), horizon]
    heights = [1.0, *(step.survival for step in steps)]
    areas = [(b - a) * h for (a, b), h in zip(pairwise(times), heights, strict=True)]
    mean = math.fsum(areas)
    variance = 0.0
    for index, step in enumerate(steps, start=1):
        left = step.at_risk - step.reached
        if left:
            later = math.fsum(areas[index:])
            variance += later * later * step.reached / (step.at_risk * left)
    if not steps or variance == 0:
        return Estimate(mean, None, None)
    # Student's t, as with means: normal quantiles hold the truth too seldom below twenty runs.
    degrees = max(1, sum(step.reached for step in steps) - 1)
    half = t_above(degrees, tail) * math.sqrt(variance)
    return Estimate(mean, mean - half, mean + half)


def expected_time(trials: Sequence[CensoredTime]) -> float | None:
    """Seconds spent for each run that reached the target; None where none did.

    What it takes on average to get there by starting anew after each miss: total time over
    successes, as sweeps for "expected time to solution" have it.
    """
    reached = sum(trial.reached for trial in trials)
    return sum(trial.seconds for trial in trials) / reached if reached else None


def expected_time_interval(trials: Sequence[CensoredTime], tail: float = 0.025) -> Estimate | None:
    """`expected_time` with its interval; None where no run reached the target.

    It is the mean of the runs that reached it, and for each of those the misses before it. Of the
    first the interval is Student's t, of the second Wilson's; the two are put together by squares
    (MOVER, Zou & Donner 2008). Where no run missed, a miss is taken to last as long as the longest.
    An end is None below `FEWEST_FOR_COST` runs.
    """
    value = expected_time(trials)
    if value is None:
        return None
    if len(trials) < FEWEST_FOR_COST or not 0 < value < math.inf:
        return Estimate(value, None, None)
    reached = [trial.seconds for trial in trials if trial.reached]
    missed = [trial.seconds for trial in trials if not trial.reached]
    of_a_miss = sum(missed) / len(missed) if missed else max(reached)
    chance = proportion_interval(len(missed), len(trials), tail)
    misses = len(missed) / len(reached)
    spread = stdev(reached) if len(reached) > 1 else 0.0
    half = t_above(max(1, len(reached) - 1), tail) * spread / math.sqrt(len(reached))
    ends = (p / (1 - p) - misses for p in (chance.low or 0.0, chance.high or 0.0))
    below, above = (math.hypot(half, of_a_miss * one) for one in ends)
    return Estimate(value, max(0.0, value - below), value + above)


FEWEST_FOR_COST = 5
"""Runs below which the cost of a success has no interval."""
RESAMPLES = 2000
FEWEST_FOR_BOOTSTRAP = 10
"""Runs a side below which resamples are too much alike for an interval."""


def expected_time_ratio(
    base: Sequence[CensoredTime], new: Sequence[CensoredTime], tail: float
) -> Estimate | None:
    """Expected seconds of `new` over those of `base`, by the percentile bootstrap (Efron 1979).

    Runs are drawn within each side, by a generator of a fixed seed: the same records give the same
    interval. It is approximate; widened as Student's t is wider than the normal (Hesterberg 2015,
    "expanded percentile"), it is wrong 5 to 7 times in a hundred where it says 5. None where a side
    never reached the target; an end is None where resamples lack it, or runs are few.
    """
    of_base, of_new = expected_time(base), expected_time(new)
    if of_base is None or of_new is None:
        return None
    fewest = min(len(base), len(new))
    if fewest < FEWEST_FOR_BOOTSTRAP or tail * RESAMPLES < 5:
        return Estimate(of_new / of_base, None, None)
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
    value = of_new / of_base
    low, high = (
        value * (end / value) ** wider if 0 < end < math.inf else None
        for end in (ratios[outside], ratios[-1 - outside])
    )
    return Estimate(value, low, high)
