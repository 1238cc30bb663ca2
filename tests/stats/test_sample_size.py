"""The number of runs that is advised shows the difference that is asked for."""

from __future__ import annotations

import random

import pytest

from bench.stats.intervals import location_shift, paired_location_shift
from bench.stats.sample_size import fewest_runs, ratio_spread, runs_needed
from tests.stats.simulations import SIMULATIONS


def test_too_few_runs_or_no_difference_need_no_number() -> None:
    assert ratio_spread([1.0], [2.0, 3.0], paired=False) is None
    assert runs_needed(1.0, 0.0, 0.025, 0.8) is None
    assert runs_needed(1.0, 1e-200, 0.025, 0.8) is None


@pytest.mark.parametrize("difference", [0.05, 0.1])
def test_the_runs_that_are_advised_see_the_difference(difference: float) -> None:
    """With about the power that was asked for; the machine's noise here is 3 %."""
    generator, noise = random.Random(7), 0.03
    pilot = [generator.gauss(0, noise) for _ in range(400)]
    spread = ratio_spread(pilot[:200], pilot[200:], paired=False)
    assert spread is not None
    count = runs_needed(spread, difference, 0.025, 0.8)
    assert count is not None
    count = max(count, fewest_runs(0.025, paired=False))
    seen = 0
    for _ in range(SIMULATIONS):
        base = [generator.gauss(0, noise) for _ in range(count)]
        new = [generator.gauss(difference, noise) for _ in range(count)]
        low = location_shift(base, new, 0.025).low
        seen += low is not None and low > 0
    assert seen / SIMULATIONS > 0.65  # 0.8, but for the levels that so few ranks have


@pytest.mark.parametrize("tail", [0.05, 0.025, 0.004])
def test_the_fewest_values_that_have_an_interval(tail: float) -> None:
    for paired in (True, False):
        count = fewest_runs(tail, paired)
        for values, there in ((count, True), (count - 1, False)):
            ramp = [float(k) for k in range(max(1, values))]
            found = (
                paired_location_shift(ramp, tail) if paired else location_shift(ramp, ramp, tail)
            )
            assert (found.low is not None) == there
