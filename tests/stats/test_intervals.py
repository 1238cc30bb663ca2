"""Intervals against known truth and against scipy's."""

from __future__ import annotations

import math
import random
import warnings
from statistics import median

import pytest
from hypothesis import given, strategies as st
from scipy import stats as scipy_stats

from bench.stats.intervals import (
    Estimate,
    fisher_exact,
    location_shift,
    mean_difference,
    paired_location_shift,
    paired_mean_difference,
    product,
    proportion_interval,
)
from tests.stats.simulations import SHAPES, SIMULATIONS, at_most

finite = st.floats(-1e6, 1e6)
samples = st.lists(finite, min_size=1, max_size=9)


def misses(intervals: list[Estimate], truth: float) -> int:
    """How many intervals do not hold the truth; one without ends holds everything."""
    return sum(
        (of.low is not None and of.low > truth) or (of.high is not None and of.high < truth)
        for of in intervals
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [3, 5, 10, 20])
def test_a_shift_is_covered_as_often_as_stated(shape: str, count: int) -> None:
    generator, draw = random.Random(f"{shape} {count}"), SHAPES[shape]
    intervals = [
        location_shift(
            [draw(generator) for _ in range(count)],
            [0.1 + draw(generator) for _ in range(count)],
            0.05,
        )
        for _ in range(SIMULATIONS)
    ]
    assert misses(intervals, 0.1) <= at_most(0.10)


@pytest.mark.parametrize("count", [5, 10, 20])
def test_a_paired_shift_is_covered_as_often_as_stated(count: int) -> None:
    """Whatever both of a pair share, and it may be much, does not matter."""
    generator = random.Random(count)
    intervals = []
    for _ in range(SIMULATIONS):
        differences = []
        for _ in range(count):
            shared = generator.lognormvariate(0, 2)
            one, other = shared + generator.gauss(0, 1), shared + generator.gauss(0.3, 1)
            differences.append(other - one)
        intervals.append(paired_location_shift(differences, 0.05))
    assert misses(intervals, 0.3) <= at_most(0.10)


@pytest.mark.parametrize("count", [3, 5, 10, 20])
def test_a_difference_of_means_is_covered_as_often_as_stated(count: int) -> None:
    generator = random.Random(count)
    intervals = [
        mean_difference(
            [generator.gauss(0, 1) for _ in range(count)],
            [generator.gauss(0.5, 3) for _ in range(count)],
            0.05,
        )
        for _ in range(SIMULATIONS)
    ]
    assert misses(intervals, 0.5) <= at_most(0.10)


@given(samples, samples, st.sampled_from([0.01, 0.025, 0.05, 0.1]))
def test_the_ends_of_a_shift_are_where_the_rank_test_turns(
    first: list[float], second: list[float], tail: float
) -> None:
    """There are ends as soon as the test can reject anything, and the estimate is between."""
    found = location_shift(first, second, tail)
    least = 1 / math.comb(len(first) + len(second), len(first))
    assert (found.low is None) == (least > tail)
    if found.low is not None and found.high is not None:
        assert found.low <= found.value <= found.high
    assert found.value == median(b - a for a in first for b in second)


@given(
    st.lists(finite, min_size=2, max_size=12),
    st.lists(finite, min_size=2, max_size=12),
)
def test_the_difference_of_means_is_scipys(first: list[float], second: list[float]) -> None:
    found = mean_difference(first, second, 0.025)
    if found.low == found.high:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where all values of a side are equal
        theirs = scipy_stats.ttest_ind(second, first, equal_var=False).confidence_interval(0.95)
    assert found.low == pytest.approx(float(theirs.low), rel=1e-6, abs=1e-6)
    assert found.high == pytest.approx(float(theirs.high), rel=1e-6, abs=1e-6)


@given(st.lists(finite, min_size=2, max_size=12))
def test_the_mean_of_differences_is_scipys(differences: list[float]) -> None:
    found = paired_mean_difference(differences, 0.025)
    if found.low == found.high:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # nearly equal values
        theirs = scipy_stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert found.low == pytest.approx(float(theirs.low), rel=1e-6, abs=1e-6)
    assert found.high == pytest.approx(float(theirs.high), rel=1e-6, abs=1e-6)


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_share_is_scipys(counts: tuple[int, int]) -> None:
    successes, count = counts
    found = proportion_interval(successes, count)
    theirs = scipy_stats.binomtest(successes, count).proportion_ci(0.95, method="wilson")
    assert found.low == pytest.approx(float(theirs.low), abs=1e-9)
    assert found.high == pytest.approx(float(theirs.high), abs=1e-9)


def test_large_samples_agree_with_the_counted_ones() -> None:
    generator = random.Random(1)
    first = [generator.gauss(0, 1) for _ in range(60)]
    second = [generator.gauss(0.5, 1) for _ in range(60)]
    rough, ends = (
        location_shift(first, second, 0.025),
        location_shift(first[:50], second[:50], 0.025),
    )
    assert rough.low is not None
    assert rough.high is not None
    assert ends.low is not None
    assert ends.high is not None
    assert rough.high - rough.low == pytest.approx(
        (ends.high - ends.low) * (50 / 60) ** 0.5, rel=0.2
    )
    signed = paired_location_shift([b - a for a, b in zip(first, second, strict=True)], 0.025)
    assert signed.low is not None
    assert signed.low < 0.5


def test_too_few_say_nothing() -> None:
    assert location_shift([1.0, 2.0], [3.0, 4.0], 0.025) == Estimate(2.0, None, None)
    assert paired_location_shift([1.0] * 4, 0.05) == Estimate(1.0, None, None)
    assert mean_difference([1.0], [2.0, 3.0], 0.025) == Estimate(1.5, None, None)


@given(st.integers(1, 30), st.integers(1, 30), st.data())
def test_fewer_successes_is_fishers(of_base: int, of_new: int, data: st.DataObject) -> None:
    base, new = data.draw(st.integers(0, of_base)), data.draw(st.integers(0, of_new))
    table = [[new, of_new - new], [base, of_base - base]]
    theirs = scipy_stats.fisher_exact(table, alternative="less").pvalue
    assert fisher_exact(base, of_base, new, of_new) == pytest.approx(float(theirs))


def test_the_interval_of_a_product_covers_the_truth_as_often_as_it_says() -> None:
    """Three means of few log-normal values: two multiplied, divided by the third."""
    generator = random.Random(1)

    def measured(centre: float, count: int) -> Estimate:
        values = [centre * math.exp(generator.gauss(0, 0.1)) for _ in range(count)]
        return mean_difference([0.0, 0.0], values, 0.025)

    truth = 4 * 3 / 2 * math.exp(0.1**2 / 2)
    intervals = [
        product([measured(4, 6), measured(3, 20)], [measured(2, 10)]) for _ in range(SIMULATIONS)
    ]
    misses = sum(not (one.low or 0) <= truth <= (one.high or 0) for one in intervals)
    assert misses <= at_most(0.05)


def test_a_product_of_one_estimate_is_it_and_without_an_end_has_none() -> None:
    one = Estimate(10.0, 5.0, 20.0)
    assert (product([one]).low, product([one]).high) == pytest.approx((5.0, 20.0))
    inverse = product([Estimate(1.0, 1.0, 1.0)], [one])
    assert (inverse.low, inverse.value, inverse.high) == pytest.approx((0.05, 0.1, 0.2))
    squared = product([one, one])
    assert (squared.low, squared.high) == pytest.approx((100 / 2**2**0.5, 100 * 2**2**0.5))
    assert product([one, Estimate(2.0, None, 3.0)]) == Estimate(20.0, None, None)
