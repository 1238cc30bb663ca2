"""Runs grouped into benchmarks, and the summary of what each benchmark measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

from bench.analysis.columns import MEASURED, Column, Run, columns_with
from bench.analysis.counting import allows_interval, counted_runs
from bench.analysis.metrics import attempt_of, completed, reached_epoch
from bench.analysis.repeats import has_repeated_seeds
from bench.analysis.result_warnings import ResultWarning, benchmark_warnings
from bench.analysis.setup_key import SetupKey
from bench.records.schema import RunRecord
from bench.stats.attempts import seconds_per_success_interval
from bench.stats.intervals import Estimate
from bench.stats.summary import MISSED, MetricSummary, summarize


@dataclass(frozen=True)
class Benchmark:
    """The runs of one recipe on one device set-up that were measured together."""

    runs: tuple[Run, ...]
    """One run or more, in the order they were run."""

    @property
    def records(self) -> list[RunRecord]:
        """The runs' records."""
        return [record for _, record in self.runs]

    @property
    def reached(self) -> int:
        """Number of completed runs that reached the target."""
        return sum(reached_epoch(run) is not None for run in completed(self.records))

    @property
    def target_accuracy(self) -> float:
        """The accuracy that a run must reach, as a fraction."""
        return self.runs[0][1].protocol.target_accuracy

    @cached_property
    def warnings(self) -> Mapping[ResultWarning, int | None]:
        """What makes this result doubtful; see `bench.analysis.result_warnings`."""
        return benchmark_warnings(self.records)

    @property
    def seconds_per_success(self) -> Estimate | None:
        """Seconds of all completed runs, misses included, for each that reached the target.

        None when no run reached it. Its ends are None where runs repeat a seed: such runs do not
        show how often others would miss.
        """
        runs = completed(self.records)
        estimate = seconds_per_success_interval([attempt_of(run) for run in runs])
        if estimate is None or not has_repeated_seeds(runs):
            return estimate
        return Estimate(estimate.value, None, None)

    def summary(self, column_name: str) -> MetricSummary:
        """The summary of a measured column over the completed runs, none counted twice.

        Args:
            column_name: a column of role `Role.MEASURED`, as ``"time_to_target_seconds"``.
        """
        return self._summaries[column_name]

    @cached_property
    def _summaries(self) -> Mapping[str, MetricSummary]:
        return {column.name: self._summarize(column) for column in columns_with(MEASURED)}

    def _summarize(self, column: Column) -> MetricSummary:
        summary = summarize(measured_values(column, self.records))
        if allows_interval(column.name, self.records):
            return summary
        return replace(summary, low=None, high=None, median_low=None, median_high=None)


def measured_values(column: Column, records: Sequence[RunRecord]) -> list[float]:
    """What a summary of a measured column counts: a value a run, a miss as `MISSED`.

    Args:
        column: a column of role `Role.MEASURED`.
        records: runs of one benchmark.
    """
    values: list[float] = []
    for record in counted_runs(column.name, records):
        value = column.cell((None, record))
        if isinstance(value, int | float):
            values.append(float(value))
        elif column.missing_is_missed:
            values.append(MISSED)
    return values


def group_runs(runs: Iterable[Run]) -> list[Benchmark]:
    """Sort runs into their benchmarks, the oldest first.

    Runs that share a benchmark's id but not its machine, set-up, recipe or protocol are kept apart.
    A record of an attempt that was resumed is none of a run: the run that went on holds all of it.
    """
    groups: dict[SetupKey, list[Run]] = {}
    for run in sorted(runs, key=_start):
        key = SetupKey.of(run[1]).ignoring("environment.dirty")
        groups.setdefault(key, []).append(run)
    return [Benchmark(tuple(_without_resumed_attempts(group))) for group in groups.values()]


def _without_resumed_attempts(runs: Sequence[Run]) -> list[Run]:
    """Of each run its last record."""
    last: dict[tuple[str, int, int], int] = {}
    for _, record in runs:
        run = (record.benchmark_id, record.run_index, record.seed)
        last[run] = max(record.resumed, last.get(run, 0))
    return [
        (path, record)
        for path, record in runs
        if record.resumed == last[record.benchmark_id, record.run_index, record.seed]
    ]


def pool_single_runs(benchmarks: Iterable[Benchmark]) -> list[Benchmark]:
    """The same benchmarks, but those of one run that differ only in their id as one benchmark.

    A command that needs a fresh process for each run (such as `ab`) starts a benchmark per run.
    """
    groups: dict[tuple[str, SetupKey], list[Run]] = {}
    for benchmark in benchmarks:
        record = benchmark.runs[0][1]
        own_id = "" if record.protocol.runs == 1 else record.benchmark_id
        key = own_id, SetupKey.of(record).ignoring("benchmark_id")
        groups.setdefault(key, []).extend(benchmark.runs)
    return [Benchmark(tuple(group)) for group in groups.values()]


def _start(run: Run) -> tuple[datetime, int, str]:
    record = run[1]
    return record.started_utc, record.run_index, record.run_id
