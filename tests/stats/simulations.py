"""Distributions to simulate measurements with, and how often a simulation may miss."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from scipy import stats as scipy_stats

SIMULATIONS = 400
Draw = Callable[[random.Random], float]
SHAPES: dict[str, Draw] = {
    "normal": lambda r: r.gauss(0, 1),
    "skewed": lambda r: r.lognormvariate(0, 1),
    # A shared machine: one run in five takes three times as long.
    "stragglers": lambda r: r.gauss(0, 0.02) + (math.log(3) if r.random() < 0.2 else 0),
}


def at_most(rate: float) -> float:
    """The number of misses in `SIMULATIONS` that chance exceeds once in a thousand times.

    Args:
        rate: probability of a miss.
    """
    return float(scipy_stats.binom.ppf(0.999, SIMULATIONS, rate))
