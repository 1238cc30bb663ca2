"""Which rows and columns of a table are wanted, and in which order.

Rows are left out, put in order and put together, and never summed up: what runs of several set-ups
have in common is no measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from bench.analysis import relative_speed
from bench.analysis.benchmarks import Benchmark
from bench.analysis.columns import Row, benchmark_column_names, run_column_names
from bench.analysis.cost import Price, priced
from bench.analysis.filters import parse_filter
from bench.analysis.headings import readable_names
from bench.analysis.rows import benchmark_rows, run_rows
from bench.analysis.units import Cell
from mnist_cnn.errors import UsageError, near_match


@dataclass(frozen=True, slots=True)
class RowTable:
    """Rows, the columns of them that are wanted, in order, and the groups that they make."""

    rows: Sequence[Row]
    columns: Sequence[str]
    group_by: str | None = None
    """A column; rows of which it has the same value stand together."""

    def groups(self) -> Iterator[tuple[Cell, Sequence[Row]]]:
        """Each value of `group_by` with its rows; all rows with None where there is none."""
        if self.group_by is None:
            yield None, self.rows
            return
        start = 0
        for stop in range(1, len(self.rows) + 1):
            value = self.rows[start][self.group_by]
            if stop == len(self.rows) or self.rows[stop][self.group_by] != value:
                yield value, self.rows[start:stop]
                start = stop


def parse_columns(text: str, known: Sequence[str]) -> list[str]:
    """The columns of ``a,b,c``.

    Raises:
        UsageError: there is no such column, or one is named twice.
    """
    names = [name.strip() for name in text.split(",")]
    for number, name in enumerate(names):
        check(name, known, "--columns")
        if name in names[:number]:
            raise UsageError(f"--columns names {name} twice")
    return names


def check(name: str, known: Sequence[str], option: str) -> str:
    """The name, which is a column's.

    Raises:
        UsageError: it is none.
    """
    if name not in known:
        raise UsageError(
            f"{option}: there is no column {name!r}{near_match(name, known)}; "
            "report --to json has them all"
        )
    return name


def sort_and_group(table: RowTable, sort: str | None, group_by: str | None) -> RowTable:
    """The rows in order, equal ones as they were, and those of a group together.

    A group stands where the first of its rows would.

    Args:
        table: with all the columns that there are.
        sort: a column, smallest first; ``-column``: largest first. Absent values come last.
        group_by: a column.

    Raises:
        UsageError: there is no such column.
    """
    rows = list(table.rows)
    if sort is not None:
        name = check(sort.removeprefix("-"), table.columns, "--sort")
        known = [row for row in rows if row[name] is not None]
        known.sort(key=lambda row: row[name], reverse=sort.startswith("-"))  # type: ignore[arg-type, return-value]
        rows = known + [row for row in rows if row[name] is None]
    if group_by is not None:
        check(group_by, table.columns, "--group-by")
        groups: dict[Cell, list[Row]] = {}
        for row in rows:
            groups.setdefault(row[group_by], []).append(row)
        rows = [row for group in groups.values() for row in group]
    return replace(table, rows=rows, group_by=group_by)


@dataclass(frozen=True, slots=True)
class TableRequest:
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
class Selection:
    """What is left of the benchmarks, and the rows that are theirs or their runs'."""

    benchmarks: Sequence[Benchmark]
    table: RowTable
    """With every column, or those that were asked for."""


def select_rows(benchmarks: Sequence[Benchmark], wishes: TableRequest) -> Selection:
    """The rows that are wanted, of all benchmarks that were read.

    Raises:
        UsageError: a wish names what there is not, or leaves nothing.
    """
    if wishes.per_run:
        # What a row stands for is a benchmark of that run alone.
        subjects = [Benchmark((run,)) for benchmark in benchmarks for run in benchmark.runs]
        rows, columns = run_rows(benchmarks), run_column_names()
    else:
        subjects = list(benchmarks)
        rows, columns = benchmark_rows(benchmarks), benchmark_column_names()
    if wishes.price is not None:
        rows, columns = priced(rows, columns, wishes.price)
    known = columns if wishes.baseline is None else [*columns, *relative_speed.COLUMNS]
    condition = None if wishes.where is None else parse_filter(wishes.where, known)
    # Where it can be, before rows are compared: what is not shown costs no certainty.
    first = condition is not None and not condition.columns & set(relative_speed.COLUMNS)
    if condition is not None and first:
        subjects, rows = _kept(subjects, rows, condition.holds)
    if wishes.baseline is not None:
        base = relative_speed.find_baseline(benchmarks, wishes.baseline)
        speeds = relative_speed.relative_speeds(base, [one.records for one in subjects])
        rows = [row | speed.row() for row, speed in zip(rows, speeds, strict=True)]
    if condition is not None and not first:
        subjects, rows = _kept(subjects, rows, condition.holds)
    table = sort_and_group(RowTable(rows, known), wishes.sort, wishes.group_by)
    if wishes.columns is not None:
        table = RowTable(table.rows, parse_columns(wishes.columns, known), table.group_by)
    return Selection(_benchmarks_of(subjects, benchmarks) if wishes.per_run else subjects, table)


def readable_columns(table: RowTable, wishes: TableRequest) -> RowTable:
    """Without what nobody asked for: less usual columns, and those of which nothing is known."""
    if wishes.columns is not None:
        return table
    usual = [name for name in readable_names(table.columns) if name != table.group_by]
    known = [name for name in usual if any(row[name] is not None for row in table.rows)]
    return RowTable(table.rows, known, table.group_by)


def _kept(
    subjects: Sequence[Benchmark], rows: Sequence[Row], holds: Callable[[Row], bool]
) -> tuple[list[Benchmark], list[Row]]:
    pairs = [pair for pair in zip(subjects, rows, strict=True) if holds(pair[1])]
    if not pairs:
        raise UsageError(f"--filter leaves none of {len(rows):,} rows")
    return [subject for subject, _ in pairs], [row for _, row in pairs]


def _benchmarks_of(
    subjects: Sequence[Benchmark], benchmarks: Sequence[Benchmark]
) -> list[Benchmark]:
    """The benchmarks, each with those of its runs that are among the subjects."""
    wanted = {record.run_id for subject in subjects for record in subject.records}
    parts = (tuple(r for r in one.runs if r[1].run_id in wanted) for one in benchmarks)
    return [Benchmark(runs) for runs in parts if runs]
