"""How often the intervals that count missed runs cover the truth, simulated.

As with `fast`, a run reaches the target at its last epoch or not at all: successes and misses end
alike. The restricted mean gives each run twice the time. The table of docs/statistics.md is
computed again from the same simulation.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from statistics import NormalDist

import pytest
from scipy import stats as scipy_stats

from bench.stats.attempts import Attempt, restricted_mean, seconds_per_success_interval
from bench.stats.order_statistics import median_interval
from bench.stats.student_t import t_above
from bench.stats.summary import MISSED

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "statistics.md"
SIMULATIONS = 1000
CENTRE, SPREAD, HORIZON = 10.0, 0.5, 20.0
CHANCES, COUNTS = (0.6, 0.75, 0.95), (5, 10, 20)
Ends = tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class Method:
    """A way to make an interval, and what it is to cover."""

    interval: Callable[[Sequence[Attempt]], Ends]
    truth: Callable[[float], float]
    """The true value, by the chance to reach the target."""


def order_statistics(runs: Sequence[Attempt]) -> Ends:
    return median_interval([run.seconds if run.reached else MISSED for run in runs])


def kaplan_meier(runs: Sequence[Attempt]) -> Ends:
    """Brookmeyer and Crowley's interval of the median, by the log-log band.

    The misses are taken for runs that were cut off.
    """
    z = NormalDist().inv_cdf(0.975)
    survival, greenwood = Fraction(1), 0.0
    ends: list[float] = [math.inf, math.inf]
    for index, run in enumerate(sorted(runs, key=lambda run: run.seconds)):
        at_risk = len(runs) - index
        if not run.reached or at_risk == 1:
            continue
        survival *= Fraction(at_risk - 1, at_risk)
        greenwood += 1 / (at_risk * (at_risk - 1))
        error = z * math.sqrt(greenwood) / math.log(survival)
        for end, sign in enumerate((-1, 1)):
            if float(survival) ** math.exp(sign * error) <= 0.5:
                ends[end] = min(ends[end], run.seconds)
    return ends[0], ends[1]


def cost(runs: Sequence[Attempt]) -> Ends:
    estimate = seconds_per_success_interval(runs)
    return (None, None) if estimate is None else (estimate.low, estimate.high)


def restricted(runs: Sequence[Attempt]) -> Ends:
    estimate = restricted_mean(runs, HORIZON)
    return estimate.low, estimate.high


def students(runs: Sequence[Attempt]) -> Ends:
    """Student's interval of the restricted mean, which does not know of misses that never came."""
    values = [run.seconds if run.reached else HORIZON for run in runs]
    mean = math.fsum(values) / len(values)
    squares = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    half = t_above(len(values) - 1, 0.025) * math.sqrt(squares / len(values))
    return mean - half, mean + half


def true_median(chance: float) -> float:
    """The time that half of all runs, misses included, take at most."""
    return NormalDist(CENTRE, SPREAD).inv_cdf(0.5 / chance)


def true_mean(chance: float) -> float:
    return chance * CENTRE + (1 - chance) * HORIZON


METHODS = {
    "median": Method(order_statistics, true_median),
    "Kaplan-Meier": Method(kaplan_meier, true_median),
    "a success": Method(cost, lambda chance: CENTRE / chance),
    "restricted mean": Method(restricted, true_mean),
    "Student": Method(students, true_mean),
}


@cache
def samples(count: int, chance: float) -> list[list[Attempt]]:
    generator = random.Random(f"{count} {chance}")
    return [
        [
            Attempt(generator.gauss(CENTRE, SPREAD), generator.random() < chance)
            for _ in range(count)
        ]
        for _ in range(SIMULATIONS)
    ]


@cache
def coverage(name: str, count: int, chance: float) -> float:
    """The share of samples whose interval has the truth in it; an unknown end excludes nothing."""
    method, covered = METHODS[name], 0
    for runs in samples(count, chance):
        low, high = method.interval(runs)
        truth = method.truth(chance)
        covered += (low is None or low <= truth) and (high is None or truth <= high)
    return covered / SIMULATIONS


@pytest.mark.parametrize("chance", CHANCES)
@pytest.mark.parametrize("count", COUNTS)
def test_the_median_is_covered_at_least_as_often_as_stated(count: int, chance: float) -> None:
    fewest = scipy_stats.binom.ppf(0.001, SIMULATIONS, 0.95) / SIMULATIONS
    assert coverage("median", count, chance) >= fewest


@pytest.mark.parametrize("name", ["a success", "restricted mean"])
@pytest.mark.parametrize("chance", CHANCES)
@pytest.mark.parametrize("count", COUNTS)
def test_what_a_miss_costs_is_covered_about_as_often_as_stated(
    name: str, count: int, chance: float
) -> None:
    """Approximate: at worst 9 times in 10."""
    fewest = scipy_stats.binom.ppf(0.001, SIMULATIONS, 0.9) / SIMULATIONS
    assert coverage(name, count, chance) >= fewest


def test_the_methods_that_are_not_used_cover_too_seldom() -> None:
    assert coverage("Kaplan-Meier", 20, 0.6) < 0.8
    assert coverage("Student", 10, 0.95) < 0.6


@pytest.mark.slow
def test_the_documents_table() -> None:
    lines = [
        f"| {chance:.0%} | {count} | "
        + " | ".join(f"{100 * coverage(name, count, chance):.1f} %" for name in METHODS)
        + " |"
        for chance in CHANCES
        for count in COUNTS
    ]
    table = "\n".join(line.replace("%", " %", 1) for line in lines)
    assert table in DOCUMENT.read_text(encoding="utf-8"), table
