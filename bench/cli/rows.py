"""What `mnist-bench report` is asked to make of its rows: which, which columns, in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench import comparison, relative
from bench.comparison import Benchmark, Row
from bench.condition import parse
from bench.cost import Price, priced
from bench.headings import shown
from bench.query import Table, arranged, parse_columns
from mnist_cnn.errors import UsageError


@dataclass(frozen=True, slots=True)
class Wishes:
    """The options of `report` that are about rows, as they were given."""

    per_run: bool
    price: Price | None = None
    baseline: str | None = None
    where: str | None = None
    columns: str | None = None
    sort: str | None = None
    group_by: str | None = None

    @property
    def for_rows(self) -> bool:
        """Whether they ask for plain rows where people would be shown tables of another kind."""
        return (self.baseline, self.columns, self.sort, self.group_by) != (None,) * 4


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is left of the benchmarks, and the rows that are theirs or their runs'."""

    benchmarks: Sequence[Benchmark]
    table: Table
    """With every column, or those that were asked for."""


def choose(benchmarks: Sequence[Benchmark], wishes: Wishes) -> Chosen:
    """The rows that are wanted, of all benchmarks that were read.

    Raises:
        UsageError: a wish names what there is not, or leaves nothing.
    """
    if wishes.per_run:
        # What a row stands for is a benchmark of that run alone.
        subjects = [Benchmark((run,)) for benchmark in benchmarks for run in benchmark.runs]
        rows, columns = comparison.run_rows(benchmarks), comparison.run_column_names()
    else:
        subjects = list(benchmarks)
        rows, columns = comparison.benchmark_rows(benchmarks), comparison.benchmark_column_names()
    if wishes.price is not None:
        rows, columns = priced(rows, columns, wishes.price)
    known = columns if wishes.baseline is None else [*columns, *relative.COLUMNS]
    condition = None if wishes.where is None else parse(wishes.where, known)
    # Where it can be, before rows are compared: what is not shown costs no certainty.
    first = condition is not None and not condition.columns & set(relative.COLUMNS)
    if condition is not None and first:
        subjects, rows = _kept(subjects, rows, condition.holds)
    if wishes.baseline is not None:
        base = relative.baseline(benchmarks, wishes.baseline)
        speeds = relative.relative_speeds(base, [one.records for one in subjects])
        rows = [row | speed.row() for row, speed in zip(rows, speeds, strict=True)]
    if condition is not None and not first:
        subjects, rows = _kept(subjects, rows, condition.holds)
    table = arranged(Table(rows, known), wishes.sort, wishes.group_by)
    if wishes.columns is not None:
        table = Table(table.rows, parse_columns(wishes.columns, known), table.group_by)
    return Chosen(_of(subjects, benchmarks) if wishes.per_run else subjects, table)


def for_people(table: Table, wishes: Wishes) -> Table:
    """Without what nobody asked for: less usual columns, and those of which nothing is known."""
    if wishes.columns is not None:
        return table
    usual = [name for name in shown(table.columns) if name != table.group_by]
    known = [name for name in usual if any(row[name] is not None for row in table.rows)]
    return Table(table.rows, known, table.group_by)


def _kept(
    subjects: Sequence[Benchmark], rows: Sequence[Row], holds: Callable[[Row], bool]
) -> tuple[list[Benchmark], list[Row]]:
    pairs = [pair for pair in zip(subjects, rows, strict=True) if holds(pair[1])]
    if not pairs:
        raise UsageError(f"--filter leaves none of {len(rows):,} rows")
    return [subject for subject, _ in pairs], [row for _, row in pairs]


def _of(subjects: Sequence[Benchmark], benchmarks: Sequence[Benchmark]) -> list[Benchmark]:
    """The benchmarks, each with those of its runs that are among the subjects."""
    wanted = {record.run_id for subject in subjects for record in subject.records}
    parts = (tuple(r for r in one.runs if r[1].run_id in wanted) for one in benchmarks)
    return [Benchmark(runs) for runs in parts if runs]
