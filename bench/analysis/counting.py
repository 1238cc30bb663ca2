"""Which runs the summary of a measured column counts, so that nothing is counted twice.

A time is measured once a run. What the seed decides is measured once a seed (`repeats`). Start-up
and warm-up happen once a process, and every run of the process has them in its record.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.metrics import completed, seconds_of
from bench.analysis.repeats import one_per_seed
from bench.records.schema import LapKind, RunRecord

_ONCE_A_SEED = frozenset({"final_accuracy", "best_accuracy", "samples_to_target"})
_ONCE_A_PROCESS = frozenset({"warmup_seconds"})
_PARTLY_ONCE_A_PROCESS = frozenset({"cold_time_to_target_seconds"})
"""A run's own time on top of what happened once in its process."""


def counted_runs(column_name: str, records: Sequence[RunRecord]) -> list[RunRecord]:
    """The completed runs whose values of a measured column were measured separately, in order."""
    if column_name in _ONCE_A_SEED:
        return one_per_seed(records)
    if column_name in _ONCE_A_PROCESS:
        return one_per_process(records)
    return completed(records)


def allows_interval(column_name: str, records: Sequence[RunRecord]) -> bool:
    """Whether the counted runs are independent measurements of the column.

    They are not where runs of one process share a part of their values.
    """
    if column_name not in _PARTLY_ONCE_A_PROCESS:
        return True
    return len(one_per_process(records)) == len(completed(records))


def one_per_process(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The first completed run of each process, in order.

    Runs of one process have the same benchmark and the very same start-up and warm-up laps.
    """
    first_by_process: dict[tuple[str, float | None, float | None], RunRecord] = {}
    for record in completed(records):
        start_up, warm_up = (seconds_of(record, k) for k in (LapKind.STARTUP, LapKind.WARMUP))
        first_by_process.setdefault((record.benchmark_id, start_up, warm_up), record)
    return list(first_by_process.values())
