"""How many runs are enough: `run --runs auto`.

Stein's two stages (Stein 1945): after a few runs their scatter says how many will make the mean's
interval as narrow as is wanted, and so many are made. To stop at the first moment at which it
looks narrow enough would be to stop at lucky ones; here the number is fixed before its runs are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import stdev

from bench.stats.student_t import t_quantile

PILOT = 5
"""Runs of the first stage."""


def runs_needed_for(half_width: float, values: Sequence[float]) -> int:
    """How many runs make the 95 % interval of the mean at most so wide to either side.

    Args:
        half_width: relative: 0.05 for 5 %.
        values: the first runs' times, `PILOT` of them, above 0.
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
        budget_seconds: what all runs together may take; None: as long as it takes.
        values: the time that is to be known, of each completed run.
        spent: what each run took, whatever became of it.
    """
    if budget_seconds is not None and sum(spent) + max(spent, default=0.0) > budget_seconds:
        return True  # the next one would go beyond it
    return len(values) >= PILOT and len(values) >= runs_needed_for(half_width, values)
