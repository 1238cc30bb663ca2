"""Runs that follow each other alike: a false alarm is rare, a real dependence is seen."""

from __future__ import annotations

import math
import random

import pytest

from bench.stats.autocorrelation import FEWEST_VALUES, lag_one
from tests.stats.simulations import SHAPES, SIMULATIONS, at_most

LEVEL = 0.01


def p_value(values: list[float]) -> float:
    measured = lag_one(values)
    assert measured is not None
    return measured.p_value


@pytest.mark.parametrize("count", [FEWEST_VALUES, 20, 40])
@pytest.mark.parametrize("shape", SHAPES)
def test_independent_values_alarm_as_seldom_as_stated(shape: str, count: int) -> None:
    generator = random.Random(f"{shape} {count}")
    draw = SHAPES[shape]
    alarms = sum(
        p_value([draw(generator) for _ in range(count)]) < LEVEL for _ in range(SIMULATIONS)
    )
    assert alarms <= at_most(LEVEL)


def test_values_that_follow_each_other_are_seen() -> None:
    """An autoregression of 0.6, the largest in the records: most series of thirty are seen."""
    generator = random.Random(0)
    seen = 0
    for _ in range(SIMULATIONS):
        values = [generator.gauss(0, 1)]
        while len(values) < 30:
            values.append(0.6 * values[-1] + generator.gauss(0, math.sqrt(1 - 0.6**2)))
        seen += p_value(values) < LEVEL
    assert seen > SIMULATIONS / 2


def test_the_coefficient_is_that_of_the_order() -> None:
    rising = lag_one([float(number) for number in range(20)])
    assert rising is not None
    assert rising.coefficient > 0.95
    by_turns = lag_one([1.0, 2.0] * 10)
    assert by_turns is not None
    assert by_turns.coefficient < -0.85
    assert by_turns.p_value > 0.99


def test_an_outlier_is_one_rank() -> None:
    generator = random.Random(1)
    values = [generator.gauss(0, 1) for _ in range(20)]
    values[7] = max(values) + 1
    assert lag_one(values) == lag_one([*values[:7], 1e9, *values[8:]])


@pytest.mark.parametrize("values", [[], [1.0] * 20, [1.0, 2.0, 3.0, 1.5] * 2])
def test_too_few_or_equal_values_say_nothing(values: list[float]) -> None:
    assert lag_one(values) is None
