"""Outliers by hyperfine's rule, and groups in simulated values."""

from __future__ import annotations

import random
from statistics import median

import pytest
from hypothesis import given, strategies as st

from bench.stats.anomalies import find_outliers, find_two_groups
from tests.stats.simulations import SHAPES, SIMULATIONS, Draw, at_most


@given(st.lists(st.floats(0.5, 2), min_size=3, max_size=20))
def test_outliers_are_hyperfines(values: list[float]) -> None:
    """|x - median| / MAD > 14.826; a MAD of zero is the machine epsilon."""
    middle = median(values)
    deviations = [abs(value - middle) for value in values]
    scale = median(deviations) or 2.0**-52
    found = find_outliers(values)
    for value, deviation in zip(values, deviations, strict=True):
        assert (value in found) == (deviation / scale > 14.826)
    assert find_outliers([1.0, 1.1, 0.9, 1.05, 3.0]) == [3.0]


def test_one_value_among_equal_ones_is_an_outlier() -> None:
    """The median absolute deviation is zero there, which may not hide the one that differs."""
    assert find_outliers([1.0, 1.0, 1.0, 1.0, 1.5]) == [1.5]
    assert find_outliers([1.0] * 5) == []


def test_no_values_have_no_outliers() -> None:
    assert find_outliers([]) == []


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
