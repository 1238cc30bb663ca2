"""A run's accuracy over its evaluations, drawn with block characters."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.records.schema import RunRecord

BLOCKS = "▁▂▃▄▅▆▇█"
PLAIN_BLOCKS = "_.,-~=*#"
"""ASCII characters that replace `BLOCKS`, one each."""
LONGEST = 20
"""Greatest number of characters of a line."""
FEWEST = 2
"""Smallest number of evaluations for which a line is drawn."""
_LEAST_ERROR = 1e-5
"""Error that stands for none, so that its logarithm is finite; one wrong image is 1e-4."""


def courses(records: Sequence[RunRecord]) -> list[str]:
    """One line per run, all on one scale: the logarithm of the error.

    From 97 % to 98 % is as far as from 99.0 % to 99.33 %: both remove a third of the errors. The
    lowest block is the worst evaluation of all these runs, the highest the best. The line of a run
    with fewer than two evaluations is empty.
    """
    heights = [
        [-math.log(max(_LEAST_ERROR, 1 - evaluation.accuracy)) for evaluation in record.evaluations]
        for record in records
    ]
    all_heights = [height for run in heights if len(run) >= FEWEST for height in run]
    low, high = min(all_heights, default=0.0), max(all_heights, default=0.0)
    return [_line(run, low, high) if len(run) >= FEWEST else "" for run in heights]


def _line(heights: Sequence[float], low: float, high: float) -> str:
    width = min(LONGEST, len(heights))
    # With more evaluations than characters, a character shows the last of its share.
    chosen = [heights[(column + 1) * len(heights) // width - 1] for column in range(width)]
    steps = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((height - low) * steps)] for height in chosen)
