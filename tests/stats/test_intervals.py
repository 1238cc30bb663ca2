"""Intervals against known truth, and ranks against scipy's."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable
from statistics import median

import pytest
from hypothesis import given, strategies as st
from scipy import stats as scipy_stats

from bench.stats import intervals
from bench.stats.intervals import (
    Estimate,
    find_two_groups,
    location_shift,
    mean_difference,
    paired_location_shift,
    proportion_interval,
)

SIMULATIONS = 400
finite = st.floats(-1e6, 1e6)
samples = st.lists(finite, min_size=1, max_size=9)

Draw = Callable[[random.Random], float]
SHAPES: dict[str, Draw] = {
    "normal": lambda r: r.gauss(0, 1),
    "skewed": lambda r: r.lognormvariate(0, 1),
    # A shared machine: one run in five takes three times as long.
    "stragglers": lambda r: r.gauss(0, 0.02) + (math.log(3) if r.random() < 0.2 else 0),
}


def misses(intervals: list[Estimate], truth: float) -> int:
    """How many intervals do not hold the truth; one without ends holds everything."""
    return sum(
        (of.low is not None and of.low > truth) or (of.high is not None and of.high < truth)
        for of in intervals
    )


def at_most(rate: float) -> float:
    """Misses among SIMULATIONS that a true rate exceeds once in a thousand times."""
    return float(scipy_stats.binom.ppf(0.999, SIMULATIONS, rate))


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


@pytest.mark.parametrize(("first", "second"), [(3, 3), (4, 7), (9, 5), (12, 12)])
def test_rank_sums_are_scipys(first: int, second: int) -> None:
    counts = intervals._rank_sums(first, second)
    total = math.comb(first + second, first)
    assert sum(counts) == total
    # A sample wholly below but for `u` steps has the statistic u.
    for u in range(0, first * second + 1, max(1, first * second // 6)):
        exact = float(sum(counts[: u + 1])) / total
        x, y = _with_statistic(first, second, u)
        p = scipy_stats.mannwhitneyu(x, y, alternative="less", method="exact").pvalue
        assert exact == pytest.approx(float(p), rel=1e-9)


def _with_statistic(first: int, second: int, u: int) -> tuple[list[float], list[float]]:
    """Two samples whose Mann-Whitney statistic, of the first, is `u`."""
    whole, part = divmod(u, second)
    below = [-1.0 - k for k in range(first - whole - (part > 0))]
    within = [part - 0.5] if part else []
    above = [second + 1.0 + k for k in range(whole)]
    return below + within + above, [float(k) for k in range(second)]


@pytest.mark.parametrize("count", [1, 5, 8, 13])
def test_signed_ranks_are_scipys(count: int) -> None:
    counts = intervals._signed_ranks(count)
    assert sum(counts) == 2**count
    total = count * (count + 1) // 2
    for rank in range(1, count + 1):
        # Positive: the one value of that rank.
        values = [float(k) if k == rank else -float(k) for k in range(1, count + 1)]
        p = scipy_stats.wilcoxon(values, alternative="less", method="exact").pvalue
        assert sum(counts[: rank + 1]) / 2**count == pytest.approx(float(p), rel=1e-9)
    assert counts == counts[::-1]
    assert len(counts) == total + 1


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
    found = intervals.paired_mean_difference(differences, 0.025)
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
    assert intervals.ratio_spread([1.0], [2.0, 3.0], paired=False) is None
    assert intervals.runs_needed(1.0, 0.0, 0.025, 0.8) is None
    assert intervals.runs_needed(1.0, 1e-200, 0.025, 0.8) is None


@pytest.mark.parametrize("difference", [0.05, 0.1])
def test_the_runs_that_are_advised_see_the_difference(difference: float) -> None:
    """With about the power that was asked for; the machine's noise here is 3 %."""
    generator, noise = random.Random(7), 0.03
    pilot = [generator.gauss(0, noise) for _ in range(400)]
    spread = intervals.ratio_spread(pilot[:200], pilot[200:], paired=False)
    assert spread is not None
    count = intervals.runs_needed(spread, difference, 0.025, 0.8)
    assert count is not None
    count = max(count, intervals.fewest_runs(0.025, paired=False))
    seen = 0
    for _ in range(SIMULATIONS):
        base = [generator.gauss(0, noise) for _ in range(count)]
        new = [generator.gauss(difference, noise) for _ in range(count)]
        low = location_shift(base, new, 0.025).low
        seen += low is not None and low > 0
    assert seen / SIMULATIONS > 0.65  # 0.8, but for the levels that so few ranks have


@given(st.integers(1, 30), st.integers(1, 30), st.data())
def test_fewer_successes_is_fishers(of_base: int, of_new: int, data: st.DataObject) -> None:
    base, new = data.draw(st.integers(0, of_base)), data.draw(st.integers(0, of_new))
    table = [[new, of_new - new], [base, of_base - base]]
    theirs = scipy_stats.fisher_exact(table, alternative="less").pvalue
    assert intervals.fisher_exact(base, of_base, new, of_new) == pytest.approx(float(theirs))


@pytest.mark.parametrize("tail", [0.05, 0.025, 0.004])
def test_the_fewest_values_that_have_an_interval(tail: float) -> None:
    for paired in (True, False):
        count = intervals.fewest_runs(tail, paired)
        for values, there in ((count, True), (count - 1, False)):
            ramp = [float(k) for k in range(max(1, values))]
            found = (
                paired_location_shift(ramp, tail) if paired else location_shift(ramp, ramp, tail)
            )
            assert (found.low is not None) == there


@given(st.lists(st.floats(0.5, 2), min_size=3, max_size=20))
def test_outliers_are_hyperfines(values: list[float]) -> None:
    """|x - median| / MAD > 14.826."""
    middle = median(values)
    deviations = [abs(value - middle) for value in values]
    found = intervals.find_outliers(values)
    for value, deviation in zip(values, deviations, strict=True):
        assert (value in found) == (deviation > 14.826 * median(deviations) > 0)
    assert intervals.find_outliers([1.0, 1.1, 0.9, 1.05, 3.0]) == [3.0]


def test_no_values_have_no_outliers() -> None:
    assert intervals.find_outliers([]) == []


@pytest.mark.parametrize("count", [10, 12, 20, 50])
@pytest.mark.parametrize("shape", ["normal", "skewed", "flat", "exponential"])
def test_one_group_is_seldom_taken_for_two(shape: str, count: int) -> None:
    shapes: dict[str, Draw] = SHAPES | {
        "flat": lambda r: r.random(),
        "exponential": lambda r: r.expovariate(1),
    }
    generator = random.Random(f"{shape} {count}")
    found = sum(
        find_two_groups([shapes[shape](generator) for _ in range(count)]) is not None
        for _ in range(SIMULATIONS)
    )
    assert found <= at_most(0.01)


def test_two_groups_are_found() -> None:
    generator = random.Random(3)
    values = [generator.gauss(center, 0.1) for center in (1.0, 2.0) for _ in range(5)]
    generator.shuffle(values)
    found = find_two_groups(values)
    assert found is not None
    assert list(found) == pytest.approx([1.0, 2.0], abs=0.2)
    assert find_two_groups(values[:9]) is None
