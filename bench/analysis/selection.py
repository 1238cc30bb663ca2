"""Selects the rows of a report: filter, price, baseline, order, columns.

Rows are left out, sorted and grouped, but never summed: over runs of several set-ups a sum is no
measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.analysis import relative_speed
from bench.analysis.benchmarks import Benchmark
from bench.analysis.columns import Row, benchmark_column_names, run_column_names
from bench.analysis.cost import Price, add_costs
from bench.analysis.filters import parse_filter
from bench.analysis.headings import readable_names
from bench.analysis.rows import benchmark_rows, run_rows
from bench.analysis.table import RowTable, parse_columns, sort_and_group
from mnist_cnn.errors import UsageError


@dataclass(frozen=True, slots=True)
class TableRequest:
    """The options of `report` that are about rows, as they were given; None where one was not."""

    per_run: bool
    """Whether a row stands for a run; otherwise for a benchmark."""
    price: Price | None = None
    baseline: str | None = None
    """Label of the runs that speeds are relative to."""
    where: str | None = None
    """Condition on rows, as `parse_filter` reads it."""
    columns: str | None = None
    """Names of columns, separated by commas."""
    sort: str | None = None
    """Name of a column, with ``-`` before it for largest first."""
    group_by: str | None = None
    """Name of a column."""

    @property
    def for_rows(self) -> bool:
        """Whether the options ask for plain rows instead of the tables that people usually see."""
        return (self.baseline, self.columns, self.sort, self.group_by) != (None,) * 4


@dataclass(frozen=True, slots=True)
class Selection:
    """The benchmarks that were selected, and a table of them or of their runs."""

    benchmarks: Sequence[Benchmark]
    table: RowTable
    """The rows, with every column or with those that were asked for."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows, each with the benchmark that it stands for."""

    subjects: Sequence[Benchmark]
    rows: Sequence[Row]

    def where(self, holds: Callable[[Row], bool]) -> _Rows:
        """The rows for which a condition holds.

        Raises:
            UsageError: there is none.
        """
        pairs = [pair for pair in zip(self.subjects, self.rows, strict=True) if holds(pair[1])]
        if not pairs:
            raise UsageError(f"--filter leaves none of {len(self.rows):,} rows")
        return _Rows([subject for subject, _ in pairs], [row for _, row in pairs])

    def relative_to(self, label: str, benchmarks: Sequence[Benchmark]) -> _Rows:
        """The rows with their speed relative to the runs of a label."""
        base = relative_speed.find_baseline(benchmarks, label)
        speeds = relative_speed.relative_speeds(base, [one.records for one in self.subjects])
        rows = [row | speed.row() for row, speed in zip(self.rows, speeds, strict=True)]
        return _Rows(self.subjects, rows)


def select_rows(benchmarks: Sequence[Benchmark], request: TableRequest) -> Selection:
    """Select rows of all benchmarks that were read.

    Raises:
        UsageError: the request names something that does not exist, or leaves no row.
    """
    if request.per_run:
        # A row stands for a benchmark of that run alone.
        subjects = [Benchmark((run,)) for benchmark in benchmarks for run in benchmark.runs]
        rows, columns = run_rows(benchmarks), run_column_names()
    else:
        subjects = list(benchmarks)
        rows, columns = benchmark_rows(benchmarks), benchmark_column_names()
    if request.price is not None:
        rows, columns = add_costs(rows, columns, request.price)
    if request.baseline is not None:
        columns = [*columns, *relative_speed.COLUMNS]
    condition = None if request.where is None else parse_filter(request.where, columns)
    # Filter before rows are compared if possible: each comparison widens the others' intervals.
    needs_speeds = condition is not None and bool(condition.columns & {*relative_speed.COLUMNS})
    selected = _Rows(subjects, rows)
    if condition is not None and not needs_speeds:
        selected = selected.where(condition.holds)
    if request.baseline is not None:
        selected = selected.relative_to(request.baseline, benchmarks)
    if condition is not None and needs_speeds:
        selected = selected.where(condition.holds)
    table = sort_and_group(RowTable(selected.rows, columns), request.sort, request.group_by)
    if request.columns is not None:
        table = RowTable(table.rows, parse_columns(request.columns, columns), table.group_by)
    if request.per_run:
        return Selection(_benchmarks_of(selected.subjects, benchmarks), table)
    return Selection(selected.subjects, table)


def readable_columns(table: RowTable, request: TableRequest) -> RowTable:
    """Without the columns that nobody asked for: minor ones, and those without any value."""
    if request.columns is not None:
        return table
    usual = [name for name in readable_names(table.columns) if name != table.group_by]
    known = [name for name in usual if any(row[name] is not None for row in table.rows)]
    return RowTable(table.rows, known, table.group_by)


def _benchmarks_of(
    subjects: Sequence[Benchmark], benchmarks: Sequence[Benchmark]
) -> list[Benchmark]:
    """The benchmarks, each with those of its runs that are among the subjects."""
    selected = {record.run_id for subject in subjects for record in subject.records}
    parts = (
        tuple(run for run in benchmark.runs if run[1].run_id in selected)
        for benchmark in benchmarks
    )
    return [Benchmark(runs) for runs in parts if runs]
