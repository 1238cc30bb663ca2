"""Runs and benchmarks as flat rows by column name, for tables, data frames and other programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.analysis.benchmarks import Benchmark
from bench.analysis.columns import (
    CENSORED_COLUMNS,
    COLUMNS,
    MEASURED,
    SHARED,
    SUMMARY_PARTS,
    Row,
    Run,
    columns_with,
    storable,
)
from bench.analysis.metrics import censored_time, completed
from bench.stats.intervals import Estimate, proportion_interval
from bench.stats.survival import CensoredTime, expected_time_interval, median_time, restricted_mean


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
    return row | _censored_cells([censored_time(run) for run in completed(benchmark.records)])


def _censored_cells(times: Sequence[CensoredTime]) -> Row:
    """Estimates of the time to target that count a run that missed it as longer than it ran."""
    row: Row = dict.fromkeys(CENSORED_COLUMNS)
    if not times:
        return row
    share = proportion_interval(sum(time.reached for time in times), len(times))
    values: list[float | None] = [*_ends(share), *_ends(median_time(times))]
    if (expected := expected_time_interval(times)) is not None:
        horizon = max(time.seconds for time in times)
        restricted = restricted_mean(times, horizon)
        values += [expected.value, *_ends(expected), restricted.value, *_ends(restricted), horizon]
    return row | dict(zip(CENSORED_COLUMNS, map(storable, values), strict=False))


def _ends(estimate: Estimate | None) -> tuple[float | None, float | None]:
    return (None, None) if estimate is None else (estimate.low, estimate.high)
