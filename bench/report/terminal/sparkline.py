"""The course of a run in a few letters: its accuracy from evaluation to evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.records.schema import RunRecord

BLOCKS = "▁▂▃▄▅▆▇█"
PLAIN_BLOCKS = "_.,-~=*#"
"""What stands for each where there is ASCII alone."""
LONGEST = 20
"""Letters, of however many evaluations."""
FEWEST = 2
"""Evaluations of which there is a course."""
_LEAST_ERROR = 1e-5
"""Below that of one image in 10,000: a logarithm must be finite."""


def courses(records: Sequence[RunRecord]) -> list[str]:
    """A line for each run, all to one scale, by the logarithm of the error.

    From 97 % to 98 % is as far as from 99.0 % to 99.33 %: both take away a third of the errors. The
    lowest block is the worst evaluation of all these runs, the highest the best. Nothing for a run
    that was evaluated less than twice.
    """
    heights = [
        [-math.log(max(_LEAST_ERROR, 1 - one.accuracy)) for one in record.evaluations]
        for record in records
    ]
    every = [height for run in heights if len(run) >= FEWEST for height in run]
    low, high = min(every, default=0.0), max(every, default=0.0)
    return [_line(run, low, high) if len(run) >= FEWEST else "" for run in heights]


def _line(heights: Sequence[float], low: float, high: float) -> str:
    width = min(LONGEST, len(heights))
    # Of more evaluations than letters, the last of each share: so the end is the end.
    chosen = [heights[(letter + 1) * len(heights) // width - 1] for letter in range(width)]
    steps = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((height - low) * steps)] for height in chosen)
