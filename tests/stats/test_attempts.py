"""What runs that missed the target cost: seconds a success, and means with misses limited."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, strategies as st
from scipy import stats as scipy_stats

from bench.stats import attempts
from bench.stats.attempts import (
    Attempt,
    restricted_mean,
    seconds_per_success,
    seconds_per_success_interval,
    seconds_per_success_ratio,
)
from bench.stats.intervals import Estimate

trials = st.lists(
    st.builds(Attempt, st.integers(1, 30).map(float), st.booleans()), min_size=1, max_size=25
)


@given(trials, st.floats(1, 40))
def test_a_restricted_mean_is_the_mean_with_each_miss_at_the_horizon(
    runs: list[Attempt], horizon: float
) -> None:
    limited = [min(run.seconds, horizon) if run.reached else horizon for run in runs]
    mean = restricted_mean(runs, horizon)
    assert mean.value == pytest.approx(math.fsum(limited) / len(runs))
    assert mean.value <= horizon * (1 + 1e-12)
    assert (mean.low is None) == (mean.high is None)
    if mean.low is not None and mean.high is not None:
        slack = 1e-9 * horizon
        assert 0 <= mean.low <= mean.value + slack
        assert mean.value - slack <= mean.high <= horizon


@given(trials)
def test_seconds_a_success_are_all_seconds_over_the_successes(runs: list[Attempt]) -> None:
    reached = sum(run.reached for run in runs)
    total = math.fsum(run.seconds for run in runs)
    value = seconds_per_success(runs)
    assert value == (pytest.approx(total / reached) if reached else None)
    estimate = seconds_per_success_interval(runs)
    assert (estimate is None) == (value is None)
    if estimate is not None and estimate.low is not None and estimate.high is not None:
        assert len(runs) >= attempts.FEWEST_FOR_COST
        assert estimate.low <= estimate.value <= estimate.high


def test_where_all_reached_it_the_means_are_the_ordinary_ones() -> None:
    runs = [Attempt(seconds, reached=True) for seconds in (1.0, 2.0, 4.0, 5.0, 9.0)]
    assert restricted_mean(runs, 9.0).value == pytest.approx(4.2)
    assert seconds_per_success(runs) == pytest.approx(4.2)


def test_what_too_few_successes_do_not_show_has_no_interval() -> None:
    missed = [Attempt(3.0, reached=False)] * 6
    assert seconds_per_success(missed) is None
    only_misses = restricted_mean(missed, 4.0)
    assert (only_misses.value, only_misses.low, only_misses.high) == (4.0, None, None)
    one = [*missed, Attempt(2.0, reached=True)]
    for estimate in (restricted_mean(one, 4.0), seconds_per_success_interval(one)):
        assert estimate is not None
        assert estimate.low is estimate.high is None


@pytest.mark.slow
@pytest.mark.parametrize("count", [10, 20])
def test_a_ratio_of_expected_times_covers_the_truth(count: int) -> None:
    """A quarter of the runs miss; the new side is 1.5 times as slow. An approximate interval."""
    generator = random.Random(count)
    simulations, covered = 100, 0
    for _ in range(simulations):
        base, new = (
            [
                Attempt(scale * generator.uniform(0.9, 1.1), generator.random() < 0.75)
                for _ in range(count)
            ]
            for scale in (1.0, 1.5)
        )
        found = seconds_per_success_ratio(base, new, 0.025)
        assert found is not None
        covered += (found.low or 0.0) <= 1.5 <= (found.high or math.inf)
        assert (
            seconds_per_success_ratio(base, new, 0.025) == found
        )  # the same records, the same interval
    assert covered >= 86
    assert seconds_per_success_ratio(base, [Attempt(1.0, reached=False)] * 5, 0.025) is None
    few = seconds_per_success_ratio(base[:9], new[:9], 0.025)
    assert few is None or few.low is few.high is None


def test_the_spread_of_a_ratio_is_that_of_its_sides() -> None:
    """Times that scatter by 5 % on either side: the logarithm of their ratio, by 7 %."""
    generator = random.Random(1)
    for count in (20, 40):
        base, new = (
            [Attempt(generator.lognormvariate(0, 0.05), reached=True) for _ in range(count)]
            for _ in range(2)
        )
        ratio = seconds_per_success_ratio(base, new, 0.025)
        assert ratio is not None
        spread = attempts.ratio_spread(ratio, count, 0.025)
        assert spread == pytest.approx(math.hypot(0.05, 0.05), rel=0.25)
    assert attempts.ratio_spread(Estimate(1.0, None, 2.0), 20, 0.025) is None


@pytest.mark.parametrize("chance", [0.6, 0.9, 1.0])
@pytest.mark.parametrize("count", [5, 10, 20, 40])
def test_the_cost_of_a_success_is_covered_about_as_often_as_stated(
    count: int, chance: float
) -> None:
    """It is approximate: wrong six times in a hundred, of five runs nine times, where it says 5."""
    generator = random.Random(f"{count} {chance}")
    truth = (chance * 10.0 + (1 - chance) * 14.0) / chance
    wrong = 0
    for _ in range(600):
        trials = []
        for _ in range(count):
            reached = generator.random() < chance
            mean = 10.0 if reached else 14.0
            trials.append(Attempt(generator.gauss(mean, 0.5), reached=reached))
        found = attempts.seconds_per_success_interval(trials)
        if found is not None and found.low is not None and found.high is not None:
            wrong += not found.low <= truth <= found.high
    stated = 0.09 if count == 5 else 0.06
    assert wrong <= scipy_stats.binom.ppf(0.999, 600, stated)


def test_without_a_miss_it_is_the_mean() -> None:
    trials = [Attempt(float(seconds), reached=True) for seconds in range(10, 22)]
    found = attempts.seconds_per_success_interval(trials)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.value == pytest.approx(15.5)
    assert found.low < 15.5 < found.high
    assert attempts.seconds_per_success_interval([Attempt(9.0, reached=False)] * 12) is None
    few = attempts.seconds_per_success_interval(trials[:4])
    assert few is not None
    assert few.low is None
