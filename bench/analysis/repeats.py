"""Runs that repeat a seed: repeats of a time, and not of what the seed decides.

Two trainings of one seed on one machine learn the same. Their times are two measurements; their
accuracies, losses and misses are one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.records.schema import RunRecord


def one_per_seed(records: Iterable[RunRecord]) -> list[RunRecord]:
    """The first completed run of each seed, in the given order."""
    by_seed: dict[int, RunRecord] = {}
    for record in records:
        if record.counts:
            by_seed.setdefault(record.seed, record)
    return list(by_seed.values())


def has_repeated_seeds(records: Sequence[RunRecord]) -> bool:
    """Whether two completed runs have the same seed."""
    completed = [record for record in records if record.counts]
    return len(one_per_seed(completed)) < len(completed)
