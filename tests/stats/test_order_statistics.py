"""The interval of a median: exact by the binomial distribution, and with misses."""

from __future__ import annotations

import math
from fractions import Fraction
from statistics import NormalDist, median

import pytest
from hypothesis import given, strategies as st
from scipy import stats as scipy_stats

from bench.stats.order_statistics import median_interval, order_cutoff
from bench.stats.summary import MISSED, summarize

values_with_misses = st.lists(
    st.floats(0.1, 1e6) | st.just(MISSED) | st.integers(1, 5).map(float), min_size=1, max_size=40
)


@pytest.mark.parametrize("tail", [0.005, 0.025, 0.05])
@pytest.mark.parametrize("count", [1, 5, 6, 9, 20, 51, 200, 1500])
def test_the_ends_are_the_binomial_tests(count: int, tail: float) -> None:
    cutoff = order_cutoff(count, tail)
    heads = scipy_stats.binom(count, 0.5)
    assert heads.cdf(cutoff) > tail
    assert cutoff == 0 or heads.cdf(cutoff - 1) <= tail


def test_six_values_are_the_fewest_that_have_an_interval() -> None:
    assert median_interval([5.0, 1.0, 2.0, 4.0, 3.0]) == (None, None)
    assert median_interval([5.0, 1.0, 2.0, 4.0, 3.0, 6.0]) == (1.0, 6.0)
    assert median_interval([5.0, 1.0, 2.0, 4.0, 3.0, MISSED]) == (1.0, None)
    assert median_interval([MISSED] * 8) == (None, None)


@given(values_with_misses)
def test_the_interval_encloses_the_median_and_its_ends_are_values(values: list[float]) -> None:
    low, high = median_interval(values)
    centre = median(values)
    assert low is None or (low in values and low <= centre)
    assert high is None or (high in values and high >= centre)
    assert median_interval(values[::-1]) == (low, high)


@given(values_with_misses)
def test_one_more_miss_makes_nothing_faster(values: list[float]) -> None:
    """A run that is replaced by a miss raises the median and both ends, or leaves them."""
    before, after = values, [MISSED, *sorted(values)[1:]]
    assert median(before) <= median(after)
    for old, new in zip(median_interval(before), median_interval(after), strict=True):
        assert (math.inf if old is None else old) <= (math.inf if new is None else new)


@pytest.mark.parametrize("count", [24, 28, 30, 38, 44, 46, 54])
def test_the_median_is_not_a_run_late(count: int) -> None:
    """Rounded survival falls to a hair above one half at these numbers of runs."""
    times = [float(second) for second in range(1, count + 1)]
    survival, exact = 1.0, Fraction(1)
    for at_risk in range(count, count // 2, -1):
        survival *= 1 - 1 / at_risk
        exact *= Fraction(at_risk - 1, at_risk)
    assert exact == Fraction(1, 2) < survival
    assert summarize(times).median == (count + 1) / 2
    # As the normal approximation has it, to a value.
    half = NormalDist().inv_cdf(0.975) * math.sqrt(count) / 2
    low, high = median_interval(times)
    assert low is not None
    assert high is not None
    assert low + high == count + 1
    assert low == pytest.approx(count / 2 - half, abs=1.1)
