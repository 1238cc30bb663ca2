"""Runs and benchmarks as flat rows by column name, for tables, data frames and other programs."""

from __future__ import annotations

from collections.abc import Iterable

from bench.analysis.benchmarks import Benchmark
from bench.analysis.columns import (
    COLUMNS,
    MEASURED,
    MEDIAN_ENDS,
    MISS_COLUMNS,
    SHARED,
    SUMMARY_PARTS,
    Row,
    Run,
    columns_with,
    storable,
)
from bench.analysis.metrics import attempt_of, completed, end_seconds, reached_epoch
from bench.analysis.repeats import has_repeated_seeds, one_per_seed
from bench.stats.attempts import restricted_mean
from bench.stats.intervals import Estimate, proportion_interval


def run_rows(benchmarks: Iterable[Benchmark]) -> list[Row]:
    """One row per run."""
    return [run_row(run) for benchmark in benchmarks for run in benchmark.runs]


def run_row(run: Run) -> Row:
    """The row of a run."""
    return {column.name: column.cell(run) for column in COLUMNS}


def benchmark_rows(benchmarks: Iterable[Benchmark]) -> list[Row]:
    """One row per benchmark."""
    return [benchmark_row(benchmark) for benchmark in benchmarks]


def benchmark_row(benchmark: Benchmark) -> Row:
    """The row of a benchmark: what its runs share, and summaries of what they measured."""
    row: Row = {column.name: column.cell(benchmark.runs[0]) for column in columns_with(SHARED)}
    row["runs"] = len(benchmark.runs)
    row["runs_reached"] = benchmark.reached
    for column in columns_with(MEASURED):
        summary = benchmark.summary(column.name)
        for part in SUMMARY_PARTS:
            row[f"{column.name}_{part}"] = getattr(summary, part)
    row |= _miss_cells(benchmark)
    for column in columns_with(MEASURED):
        summary = benchmark.summary(column.name)
        for part in MEDIAN_ENDS:
            row[f"{column.name}_{part}"] = getattr(summary, part)
    return row


def _miss_cells(benchmark: Benchmark) -> Row:
    """Estimates that count the runs that missed the target, each with its interval."""
    row: Row = dict.fromkeys(MISS_COLUMNS)
    runs = completed(benchmark.records)
    if not runs:
        return row
    seeds = one_per_seed(runs)
    reached = sum(reached_epoch(run) is not None for run in seeds)
    time = benchmark.summary("time_to_target_seconds")
    values: list[float | None] = [
        *_ends(proportion_interval(reached, len(seeds))),
        *(time.median_low, time.median_high),
    ]
    if (expected := benchmark.seconds_per_success) is not None:
        horizon = max(map(end_seconds, runs))
        restricted = restricted_mean([attempt_of(run) for run in runs], horizon)
        ends = (None, None) if has_repeated_seeds(runs) else _ends(restricted)
        values += [expected.value, *_ends(expected), restricted.value, *ends, horizon]
    return row | dict(zip(MISS_COLUMNS, map(storable, values), strict=False))


def _ends(estimate: Estimate) -> tuple[float | None, float | None]:
    return estimate.low, estimate.high
