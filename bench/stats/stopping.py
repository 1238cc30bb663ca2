"""How many runs are enough: `run --runs auto`.

Stein's two stages (Stein 1945): the scatter of the first few runs says how many runs make the
mean's interval as narrow as requested, and that many are made. Stopping as soon as the interval
looks narrow enough would favour lucky runs; here the number is fixed before the runs are made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import stdev

from bench.stats.student_t import t_quantile
from bench.stats.sums import exact_sum

PILOT = 5
"""Number of runs of the first stage."""


def runs_needed_for(half_width: float, values: Sequence[float]) -> int:
    """Number of runs that make the mean's 95 % interval no wider than `half_width` either way.

    Args:
        half_width: relative half-width: 0.05 for 5 %.
        values: times of the first `PILOT` runs, above 0.
    """
    logs = [math.log(value) for value in values[:PILOT]]
    quantile = t_quantile(len(logs) - 1, 0.975)
    return max(PILOT, math.ceil((quantile * stdev(logs) / math.log1p(half_width)) ** 2))


def precise_enough(
    half_width: float,
    budget_seconds: float | None,
    values: Sequence[float],
    spent: Sequence[float],
) -> bool:
    """Whether to stop after these runs.

    Args:
        half_width: as for `runs_needed_for`.
        budget_seconds: seconds that all runs may take together; None without a limit.
        values: the measured time of each completed run.
        spent: seconds that each run took, completed or not.
    """
    if budget_seconds is not None and exact_sum(spent) + max(spent, default=0.0) > budget_seconds:
        return True  # the next run would exceed it
    return len(values) >= PILOT and len(values) >= runs_needed_for(half_width, values)
