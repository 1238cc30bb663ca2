"""Runs grouped into benchmarks, and the rows of each."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePath

from bench.analysis import metrics
from bench.analysis.columns import (
    CENSORED_COLUMNS,
    COLUMNS,
    MEASURED,
    SHARED,
    SUMMARY_PARTS,
    Cell,
    Column,
    Row,
    Run,
    columns_with,
)
from bench.analysis.metrics import completed
from bench.analysis.result_warnings import ResultWarning, benchmark_warnings
from bench.records.schema import RunRecord, Status
from bench.stats.intervals import Estimate, proportion_interval
from bench.stats.summary import MISSED, MetricSummary, summarize
from bench.stats.survival import CensoredTime, expected_time_interval, median_time, restricted_mean


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
    def rows(self) -> list[Row]:
        """One row a run."""
        return [run_row(run) for run in self.runs]

    @property
    def target_accuracy(self) -> float:
        """The accuracy to be reached, as a fraction."""
        return self.runs[0][1].protocol.target_accuracy

    @property
    def warnings(self) -> dict[ResultWarning, int | None]:
        """What makes this result doubtful; see `bench.analysis.result_warnings`."""
        return benchmark_warnings(self.records)


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


def run_rows(benchmarks: Iterable[Benchmark]) -> list[Row]:
    """One row a run."""
    return [row for benchmark in benchmarks for row in benchmark.rows]


def run_row(run: Run) -> Row:
    """What is known of a run, by column."""
    return {column.name: _storable(column.value(*run)) for column in COLUMNS}


def benchmark_rows(benchmarks: Iterable[Benchmark]) -> list[Row]:
    """One row a benchmark."""
    return [benchmark_row(benchmark) for benchmark in benchmarks]


def benchmark_row(benchmark: Benchmark, run_rows: Sequence[Row] | None = None) -> Row:
    """What is known of a benchmark, by column: what its runs share, and what they measured.

    Args:
        benchmark: of which.
        run_rows: `benchmark.rows`, where the caller has them already.
    """
    rows = benchmark.rows if run_rows is None else run_rows
    row: Row = {c.name: rows[0][c.name] for c in columns_with(SHARED)}
    row["runs"] = len(benchmark.runs)
    row["runs_reached"] = benchmark.reached
    done = [one for one in rows if one["status"] == Status.COMPLETED.value]
    for column in columns_with(MEASURED):
        summary = _summary(column, done)
        for part in SUMMARY_PARTS:
            row[f"{column.name}_{part}"] = getattr(summary, part)
    return row | _censored([censored_time(record) for record in completed(benchmark.records)])


def censored_time(record: RunRecord) -> CensoredTime:
    """A completed run as far as the target is concerned: to it, or to the end of the last lap."""
    seconds = metrics.time_to_target_seconds(record)
    if seconds is not None:
        return CensoredTime(seconds, reached=True)
    end = max((lap.start_seconds + lap.seconds for lap in record.laps), default=0.0)
    return CensoredTime(end, reached=False)


def _censored(trials: Sequence[CensoredTime]) -> Row:
    """What is known of the time to target where a run that missed it counts as longer."""
    row: Row = dict.fromkeys(CENSORED_COLUMNS)
    if not trials:
        return row
    reached = proportion_interval(sum(one.reached for one in trials), len(trials))
    median = median_time(trials)
    values: list[float | None] = [*_ends(reached), *_ends(median)]
    if (expected := expected_time_interval(trials)) is not None:
        horizon = max(one.seconds for one in trials)
        restricted = restricted_mean(trials, horizon)
        values += [expected.value, *_ends(expected), restricted.value, *_ends(restricted), horizon]
    return row | dict(zip(CENSORED_COLUMNS, map(_storable, values), strict=False))


def _ends(estimate: Estimate | None) -> tuple[float | None, float | None]:
    return (None, None) if estimate is None else (estimate.low, estimate.high)


def _summary(column: Column, rows: Sequence[Row]) -> MetricSummary:
    values: list[float] = []
    for row in rows:
        value = row[column.name]
        if isinstance(value, int | float):
            values.append(float(value))
        elif column.missing_is_missed:
            values.append(MISSED)
    return summarize(values)


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


def _storable(value: Cell) -> Cell:
    """The value, or None for a number that not every format can hold."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and abs(value) >= 2**63:
        return None
    return value


@dataclass(frozen=True, slots=True)
class ResultEntry:
    """A row of the page: runs that are summed up together, and where their records are."""

    folder: str
    """Below the results folder, with slashes; "." is the results folder itself."""
    benchmark: Benchmark

    @property
    def id(self) -> str:
        """What its row is found by: the start of its first run's benchmark id."""
        return self.benchmark.runs[0][1].benchmark_id[:8]


@dataclass(frozen=True, slots=True, order=True)
class ResultTable:
    """What a table is about; only rows of the same table may be compared."""

    name: str
    device: str
    target_accuracy: float


def find_entries(runs: Iterable[Run], results_dir: Path) -> list[ResultEntry]:
    """The rows that these records make, folder by folder, the oldest first."""
    folders: dict[str, list[Run]] = {}
    for path, record in runs:
        folder = "." if path is None else PurePath(os.path.relpath(path.parent, results_dir))
        folders.setdefault(PurePath(folder).as_posix(), []).append((path, record))
    return [
        ResultEntry(folder, benchmark)
        for folder in sorted(folders)
        for benchmark in pool_single_runs(group_runs(folders[folder]))
    ]


def group_into_tables(found: Iterable[ResultEntry]) -> dict[ResultTable, list[ResultEntry]]:
    """Sorted by division, device class and target; in each, the fastest to the target first."""
    divisions: dict[ResultTable, list[tuple[float, int, ResultEntry]]] = {}
    for number, entry in enumerate(found):
        record = entry.benchmark.runs[0][1]
        key = ResultTable(record.division, record.setup.device, record.protocol.target_accuracy)
        median = benchmark_row(entry.benchmark)["time_to_target_seconds_median"]
        seconds = float(median) if isinstance(median, int | float) else float("inf")
        divisions.setdefault(key, []).append((seconds, number, entry))
    return {
        key: [entry for *_, entry in sorted(divisions[key], key=lambda row: row[:2])]
        for key in sorted(divisions)
    }
