"""Censored times against scipy's Kaplan-Meier, and intervals against known truth."""

from __future__ import annotations

import math
import random
import warnings

import pytest
from hypothesis import given, strategies as st
from scipy import stats as scipy_stats

from bench.stats import survival
from bench.stats.student_t import t_quantile
from bench.stats.survival import (
    CensoredTime,
    expected_time,
    expected_time_ratio,
    kaplan_meier,
    median_time,
    restricted_mean,
)

trials = st.lists(
    st.builds(CensoredTime, st.integers(1, 30).map(float), st.booleans()), min_size=1, max_size=25
)


@given(trials)
def test_survival_is_scipys(of: list[CensoredTime]) -> None:
    data = scipy_stats.CensoredData(
        uncensored=[t.seconds for t in of if t.reached],
        right=[t.seconds for t in of if not t.reached],
    )
    theirs = scipy_stats.ecdf(data).sf
    for step in kaplan_meier(of):
        assert step.survival == pytest.approx(float(theirs.evaluate(step.seconds)), abs=1e-12)


@given(trials)
def test_the_pointwise_interval_is_scipys(of: list[CensoredTime]) -> None:
    """Where the median's ends lie follows from it."""
    data = scipy_stats.CensoredData(
        uncensored=[t.seconds for t in of if t.reached],
        right=[t.seconds for t in of if not t.reached],
    )
    sf = scipy_stats.ecdf(data).sf
    if not len(sf.quantiles):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where nobody reached it, or everybody
        low = sf.confidence_interval(0.95, method="log-log").low
    found = median_time(of)
    steps = [s for s in kaplan_meier(of) if s.survival > 0]
    below = [s.seconds for s in steps if float(low.evaluate(s.seconds)) <= 0.5]
    if found is not None and below and len(of) >= 6:
        assert found.low == below[0]


def test_where_all_reached_it_the_median_and_the_mean_are_the_ordinary_ones() -> None:
    of = [CensoredTime(seconds, reached=True) for seconds in (1.0, 2.0, 4.0, 5.0, 9.0)]
    found = median_time(of)
    assert found is not None
    assert found.value == 4.0
    assert found.low is found.high is None  # too few
    mean = restricted_mean(of, 9.0)
    assert mean.value == pytest.approx(4.2)
    assert expected_time(of) == pytest.approx(4.2)


def test_runs_that_missed_count_as_longer() -> None:
    """Freireich's remission times under 6-MP (Klein & Moeschberger 2003, table 4.1A)."""
    reached = [6.0, 6, 6, 7, 10, 13, 16, 22, 23]
    censored = [6.0, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
    of = [CensoredTime(t, reached=True) for t in reached] + [
        CensoredTime(t, reached=False) for t in censored
    ]
    steps = {step.seconds: step for step in kaplan_meier(of)}
    assert steps[6].survival == pytest.approx(0.857, abs=5e-4)
    assert steps[10].survival == pytest.approx(0.753, abs=5e-4)
    assert steps[23].survival == pytest.approx(0.448, abs=5e-4)
    assert steps[10].survival * math.sqrt(steps[10].greenwood) == pytest.approx(0.0963, abs=5e-4)
    found = median_time(of)
    assert found is not None
    assert found.value == 23
    assert found.high is None
    mean = restricted_mean(of, 35.0)
    assert mean.value == pytest.approx(23.3, abs=0.05)
    assert mean.high is not None
    assert (mean.high - mean.value) / t_quantile(8, 0.975) == pytest.approx(2.83, abs=0.02)
    assert median_time([CensoredTime(3.0, reached=False)] * 3) is None
    assert expected_time([CensoredTime(3.0, reached=False)] * 3) is None


@pytest.mark.parametrize("count", [5, 10, 20])
def test_the_restricted_mean_is_covered_about_as_often_as_stated(count: int) -> None:
    """Exponential times, a quarter of them censored at the horizon."""
    generator = random.Random(count)
    horizon = math.log(4)
    truth = 1 - math.exp(-horizon)
    simulations, covered = 400, 0
    for _ in range(simulations):
        times = [generator.expovariate(1) for _ in range(count)]
        of = [CensoredTime(min(t, horizon), reached=t < horizon) for t in times]
        found = restricted_mean(of, horizon)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= truth <= found.high
    assert covered / simulations > (0.90 if count > 5 else 0.85)


@pytest.mark.parametrize("count", [10, 20])
def test_a_ratio_of_expected_times_covers_the_truth(count: int) -> None:
    """A quarter of the runs miss; the new side is 1.5 times as slow. An approximate interval."""
    generator = random.Random(count)
    simulations, covered = 100, 0
    for _ in range(simulations):
        base, new = (
            [
                CensoredTime(scale * generator.uniform(0.9, 1.1), generator.random() < 0.75)
                for _ in range(count)
            ]
            for scale in (1.0, 1.5)
        )
        found = expected_time_ratio(base, new, 0.025)
        assert found is not None
        covered += (found.low or 0.0) <= 1.5 <= (found.high or math.inf)
        assert expected_time_ratio(base, new, 0.025) == found  # the same records, the same interval
    assert covered >= 86
    assert expected_time_ratio(base, [CensoredTime(1.0, reached=False)] * 5, 0.025) is None
    few = expected_time_ratio(base[:9], new[:9], 0.025)
    assert few is None or few.low is few.high is None


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
            trials.append(CensoredTime(generator.gauss(mean, 0.5), reached=reached))
        found = survival.expected_time_interval(trials)
        if found is not None and found.low is not None and found.high is not None:
            wrong += not found.low <= truth <= found.high
    stated = 0.09 if count == 5 else 0.06
    assert wrong <= scipy_stats.binom.ppf(0.999, 600, stated)


def test_without_a_miss_it_is_the_mean() -> None:
    trials = [CensoredTime(float(seconds), reached=True) for seconds in range(10, 22)]
    found = survival.expected_time_interval(trials)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.value == pytest.approx(15.5)
    assert found.low < 15.5 < found.high
    assert survival.expected_time_interval([CensoredTime(9.0, reached=False)] * 12) is None
    few = survival.expected_time_interval(trials[:4])
    assert few is not None
    assert few.low is None
