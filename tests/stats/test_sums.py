"""Sums of floats: rounded once, and never an exception."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, strategies as st

from bench.stats.sums import exact_sum


@given(st.lists(st.floats(-1e300, 1e300), max_size=50))
def test_a_sum_is_the_nearest_float_in_any_order(values: list[float]) -> None:
    assert exact_sum(values) == exact_sum(reversed(values)) == float(sum(map(Fraction, values)))


def test_nothing_sums_to_zero() -> None:
    assert exact_sum([]) == 0.0


@pytest.mark.parametrize("values", [[1e308, 1e308], [math.inf, 1.0], [1e308, 1e308, math.inf]])
def test_a_sum_beyond_the_greatest_float_is_infinite(values: list[float]) -> None:
    assert exact_sum(values) == math.inf


@pytest.mark.parametrize("values", [[math.inf, -math.inf], [math.nan, 1.0]])
def test_a_sum_without_a_value_is_not_a_number(values: list[float]) -> None:
    assert math.isnan(exact_sum(values))
