"""Repeats of one seed: they are repeats of a time, not of an accuracy.

Equal seeds on equal kernels give equal accuracies, to the bit. So a run that repeats a seed says
nothing new about accuracies, the share of runs that reach the target or the images that they need.
It is one more measurement of each time.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.metrics import completed
from bench.records.schema import RunRecord


def one_per_seed(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The first completed run of each seed, in order."""
    first_by_seed: dict[int, RunRecord] = {}
    for record in completed(records):
        first_by_seed.setdefault(record.seed, record)
    return list(first_by_seed.values())


def has_repeated_seeds(records: Sequence[RunRecord]) -> bool:
    """Whether several completed runs have the same seed."""
    return len(one_per_seed(records)) < len(completed(records))
