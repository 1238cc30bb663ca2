"""Shares of successes, and whether equal seeds go together."""

from __future__ import annotations

import random

import pytest

from bench.stats.shares import TOGETHER_TAIL, go_together, share_difference


def test_newcombes_example() -> None:
    """Newcombe 1998, table II, row a (56 of 70 against 48 of 80), method 10."""
    difference = share_difference(48, 80, 56, 70, 0.025)
    assert difference.value == pytest.approx(0.2)
    assert difference.low == pytest.approx(0.0524, abs=1e-4)
    assert difference.high == pytest.approx(0.3339, abs=1e-4)


def test_equal_shares_have_an_interval_around_zero() -> None:
    difference = share_difference(8, 8, 8, 8, 0.025)
    assert difference.value == 0
    assert difference.low is not None
    assert difference.high is not None
    assert -1 <= difference.low < 0 < difference.high <= 1


def test_values_that_move_together_are_seen_and_others_seldom_are() -> None:
    generator = random.Random(0)
    times, together = 2000, 0
    for _ in range(times):
        first, second = ([generator.gauss(0, 1) for _ in range(10)] for _ in range(2))
        together += go_together(first, second)
        assert go_together(first, [value - 0.02 for value in first])
        assert not go_together(first, [-value for value in first])
    assert together / times <= 2 * TOGETHER_TAIL
    assert not go_together([1, 1, 1], [1, 2, 3])
    assert not go_together([1, 2], [1, 2])
