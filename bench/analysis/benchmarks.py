"""Runs grouped into benchmarks, and the summary of what each benchmark measured."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from bench.analysis.columns import SHARED, Run, column, columns_with
from bench.analysis.metrics import completed
from bench.analysis.result_warnings import ResultWarning, benchmark_warnings
from bench.analysis.units import Cell
from bench.records.schema import RunRecord
from bench.stats.summary import MISSED, MetricSummary, summarize


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The runs of one recipe on one device set-up that were measured together."""

    runs: tuple[Run, ...]
    """At least one, in the order they were run."""

    @property
    def records(self) -> list[RunRecord]:
        """The runs' records."""
        return [record for _, record in self.runs]

    @property
    def reached(self) -> int:
        """Completed runs that reached the target."""
        return sum(run.target_reached_epoch is not None for run in completed(self.records))

    @property
    def target_accuracy(self) -> float:
        """The accuracy to be reached, as a fraction."""
        return self.runs[0][1].protocol.target_accuracy

    @property
    def warnings(self) -> dict[ResultWarning, int | None]:
        """What makes this result doubtful; see `bench.analysis.result_warnings`."""
        return benchmark_warnings(self.records)

    def summary(self, column_name: str) -> MetricSummary:
        """The summary of a measured column over the completed runs.

        Args:
            column_name: a column of role `Role.MEASURED`, as ``"time_to_target_seconds"``.
        """
        measured = column(column_name)
        values: list[float] = []
        for run in self.runs:
            if not run[1].counts:
                continue
            value = measured.cell(run)
            if isinstance(value, int | float):
                values.append(float(value))
            elif measured.missing_is_missed:
                values.append(MISSED)
        return summarize(values)


def group_runs(runs: Iterable[Run]) -> list[Benchmark]:
    """Sort runs into their benchmarks, the oldest first.

    Runs that share a benchmark's id but not its set-up, recipe or protocol are kept apart.
    """
    groups: dict[tuple[Cell, ...], list[Run]] = {}
    for run in sorted(runs, key=_when):
        groups.setdefault(_grouping_key(run), []).append(run)
    return [Benchmark(tuple(group)) for group in groups.values()]


def pool_single_runs(benchmarks: Iterable[Benchmark]) -> list[Benchmark]:
    """The same, but benchmarks of one run that differ in nothing but their id as one.

    Whoever needs a fresh process a run (`ab`, for one) starts a benchmark a run.
    """
    groups: dict[tuple[Cell, ...], list[Run]] = {}
    for benchmark in benchmarks:
        first = benchmark.runs[0]
        own_id = "" if first[1].protocol.runs == 1 else first[1].benchmark_id
        key = (own_id, first[1].environment.dirty, *_grouping_key(first, but="benchmark_id"))
        groups.setdefault(key, []).extend(benchmark.runs)
    return [Benchmark(tuple(group)) for group in groups.values()]


def _when(run: Run) -> tuple[datetime, int, str]:
    record = run[1]
    return (record.started_utc, record.run_index, record.run_id)


def _grouping_key(run: Run, but: str | None = None) -> tuple[Cell, ...]:
    """Equal for runs that may be summed up together, one of the shared columns left out."""
    record = run[1]
    return (
        *(column.value(*run) for column in columns_with(SHARED) if column.name != but),
        record.protocol.model_dump_json(),
        record.setup.model_dump_json(),
        json.dumps(record.recipe, sort_keys=True),
    )
