"""The measures of a benchmark: one value each, with its interval, for trackers."""

from __future__ import annotations

from dataclasses import dataclass

from bench.analysis.benchmarks import Benchmark
from bench.analysis.columns import MEASURED, Column, columns_with
from bench.analysis.metrics import completed
from bench.analysis.rows import benchmark_row
from bench.analysis.units import Unit

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
    """Every measured column that has a value, and the share of runs that reached the target."""
    measures = (_measure(benchmark, column) for column in columns_with(MEASURED))
    return [*(measure for measure in measures if measure), _reached_share(benchmark)]


def measured_seconds(benchmark: Benchmark) -> dict[str, list[float]]:
    """For each column of times, the values of the completed runs that have one."""
    runs = [run for run in benchmark.runs if run[1].counts]
    return {
        column.name: [float(v) for run in runs if isinstance(v := column.cell(run), int | float)]
        for column in columns_with(MEASURED)
        if column.unit is Unit.SECONDS
    }


def _measure(benchmark: Benchmark, column: Column) -> Measure | None:
    summary = benchmark.summary(column.name)
    if not column.missing_is_missed:
        if summary.mean is None:
            return None
        return Measure(column.name, column.unit, summary.mean, summary.low, summary.high, True)
    median = summary.median
    if median is None:
        return None
    low = high = None
    if column.name == "time_to_target_seconds" and (estimate := benchmark.median_time_to_target):
        # Kaplan and Meier's median may differ from this one, so that an end may not enclose it.
        low = estimate.low if estimate.low is None or estimate.low <= median else None
        high = estimate.high if estimate.high is None or estimate.high >= median else None
    return Measure(column.name, column.unit, median, low, high, symmetric=False)


def _reached_share(benchmark: Benchmark) -> Measure:
    row = benchmark_row(benchmark)
    low, high = row[f"{_REACHED_SHARE}_low"], row[f"{_REACHED_SHARE}_high"]
    return Measure(
        _REACHED_SHARE,
        Unit.FRACTION,
        benchmark.reached / len(completed(benchmark.records)),
        float(low) if isinstance(low, int | float) else None,
        float(high) if isinstance(high, int | float) else None,
        symmetric=False,
    )
