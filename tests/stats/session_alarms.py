"""How often a comparison is wrong whose sides are of different sessions: a simulation."""

from __future__ import annotations

import random

from bench.stats.intervals import Estimate, location_shift

SIMULATIONS = 1_000
RUNS = 10
"""Runs of each side."""
NOISE = 0.01
"""Standard deviation of the logarithms of the times of a session."""
TAIL = 0.025
SESSION_SPREADS = (0.0, 0.02, 0.04)
"""Standard deviations of the logarithms of the sessions' speeds."""
FLOOR_SESSIONS = (2, 3, 5)
"""Numbers of sessions of equal sides that a floor was measured in."""


def false_alarms(spread: float) -> list[float]:
    """Shares of comparisons of equal sides that show a difference.

    Args:
        spread: of the sessions' speeds.

    Returns:
        One for sides of one session; one for sides of two sessions; and for those one for each of
        `FLOOR_SESSIONS`, where a difference must exceed the floor of as many other sessions.
    """
    generator = random.Random(f"sessions {spread}")
    alarms = [0] * (2 + len(FLOOR_SESSIONS))
    for _ in range(SIMULATIONS):
        speed = generator.gauss(0, spread)
        alarms[0] += _shows_difference(_compare(generator, speed, speed), 0)
        apart = _compare(generator, speed, generator.gauss(0, spread))
        alarms[1] += _shows_difference(apart, 0)
        for place, sessions in enumerate(FLOOR_SESSIONS, start=2):
            medians = [generator.gauss(0, spread) for _ in range(sessions)]
            alarms[place] += _shows_difference(apart, max(medians) - min(medians))
    return [count / SIMULATIONS for count in alarms]


def _compare(generator: random.Random, base_speed: float, new_speed: float) -> Estimate:
    base, new = (
        [generator.gauss(speed, NOISE) for _ in range(RUNS)] for speed in (base_speed, new_speed)
    )
    return location_shift(base, new, TAIL)


def _shows_difference(estimate: Estimate, floor: float) -> bool:
    """Whether the interval of the logarithm of the ratio lies beyond the floor."""
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low > floor or estimate.high < -floor
