"""The measures of a benchmark: one value each, with its interval, for trackers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.analysis.benchmarks import Benchmark
from bench.analysis.columns import CONDITIONS, MEASURED, Column, columns_with
from bench.analysis.counting import allows_interval, counted_runs, one_per_process
from bench.analysis.metrics import reached_epoch
from bench.analysis.repeats import one_per_seed
from bench.analysis.rows import benchmark_row
from bench.analysis.units import Unit
from bench.records.schema import RunRecord

LARGER_IS_BETTER = (Unit.FRACTION, Unit.RATE)
"""Units of the measures whose larger values are better."""
_REACHED_SHARE = "runs_reached_share"


@dataclass(frozen=True, slots=True)
class Measure:
    """One value of one benchmark."""

    name: str
    """Name of its column, which includes the unit."""
    unit: Unit
    value: float
    """Mean over completed runs; for a time to target the median, which includes missed runs."""
    low: float | None
    """Lower end of the value's 95 % interval; None when there are too few runs to know it."""
    high: float | None
    """Upper end of the value's 95 % interval; None when there are too few runs to know it."""
    symmetric: bool
    """Whether both ends are equally far from the value."""


def measures_of(benchmark: Benchmark) -> list[Measure]:
    """Every measured result that has a value, the seconds a success, and the share of successes."""
    results = (column for column in columns_with(MEASURED) if column.name not in CONDITIONS)
    measures = (_measure(benchmark, column) for column in results)
    known = [measure for measure in (*measures, _seconds_per_success(benchmark)) if measure]
    return [*known, _reached_share(benchmark)]


def measured_seconds(benchmark: Benchmark) -> dict[str, list[float]]:
    """For each column of times, the values that were measured separately.

    Those are the values of the completed runs; of times that hold what happens once a process, the
    values of the first run of each.
    """
    return {
        column.name: [
            float(value)
            for run in _separate_runs(column.name, benchmark.records)
            if isinstance(value := column.cell((None, run)), int | float)
        ]
        for column in columns_with(MEASURED)
        if column.unit is Unit.SECONDS
    }


def _separate_runs(column_name: str, records: Sequence[RunRecord]) -> list[RunRecord]:
    if allows_interval(column_name, records):
        return counted_runs(column_name, records)
    return one_per_process(records)


def _measure(benchmark: Benchmark, column: Column) -> Measure | None:
    summary = benchmark.summary(column.name)
    ends: tuple[float | None, float | None]
    if column.missing_is_missed:
        value, ends = summary.median, (summary.median_low, summary.median_high)
    else:
        value, ends = summary.mean, (summary.low, summary.high)
    if value is None:
        return None
    return Measure(column.name, column.unit, value, *ends, symmetric=not column.missing_is_missed)


def _seconds_per_success(benchmark: Benchmark) -> Measure | None:
    estimate = benchmark.seconds_per_success
    if estimate is None or not math.isfinite(estimate.value):
        return None
    name = "time_to_target_seconds_expected"
    return Measure(name, Unit.SECONDS, estimate.value, estimate.low, estimate.high, symmetric=False)


def _reached_share(benchmark: Benchmark) -> Measure:
    row = benchmark_row(benchmark)
    low, high = row[f"{_REACHED_SHARE}_low"], row[f"{_REACHED_SHARE}_high"]
    seeds = one_per_seed(benchmark.records)
    return Measure(
        _REACHED_SHARE,
        Unit.FRACTION,
        sum(reached_epoch(run) is not None for run in seeds) / len(seeds),
        float(low) if isinstance(low, int | float) else None,
        float(high) if isinstance(high, int | float) else None,
        symmetric=False,
    )
