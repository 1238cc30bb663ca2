"""A table of rows: their order, their groups, and the columns that are shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bench.analysis.columns import Row
from bench.analysis.units import Cell
from mnist_cnn.errors import UsageError, near_match


@dataclass(frozen=True, slots=True)
class RowTable:
    """Rows with the columns to show, in order."""

    rows: Sequence[Row]
    columns: Sequence[str]
    group_by: str | None = None
    """A column; rows with the same value of it are next to each other. None without groups."""

    def groups(self) -> Iterator[tuple[Cell, Sequence[Row]]]:
        """Each value of `group_by` with its rows; without groups, None with all rows."""
        if self.group_by is None:
            yield None, self.rows
            return
        start = 0
        for stop in range(1, len(self.rows) + 1):
            value = self.rows[start][self.group_by]
            if stop == len(self.rows) or self.rows[stop][self.group_by] != value:
                yield value, self.rows[start:stop]
                start = stop


def sort_and_group(table: RowTable, sort: str | None, group_by: str | None) -> RowTable:
    """Sort the rows, keep equal ones in order, and put those of a group together.

    A group stands where its first row is.

    Args:
        table: a table with all columns that there are.
        sort: a column, smallest first; ``-column``: largest first. Absent values come last.
        group_by: a column.

    Raises:
        UsageError: there is no such column.
    """
    rows = list(table.rows)
    if sort is not None:
        name = check_column(sort.removeprefix("-"), table.columns, "--sort")
        known = [row for row in rows if row[name] is not None]
        known.sort(key=lambda row: row[name], reverse=sort.startswith("-"))  # type: ignore[arg-type, return-value]
        rows = known + [row for row in rows if row[name] is None]
    if group_by is not None:
        check_column(group_by, table.columns, "--group-by")
        groups: dict[Cell, list[Row]] = {}
        for row in rows:
            groups.setdefault(row[group_by], []).append(row)
        rows = [row for group in groups.values() for row in group]
    return replace(table, rows=rows, group_by=group_by)


def parse_columns(text: str, known: Sequence[str]) -> list[str]:
    """The columns of ``a,b,c``.

    Raises:
        UsageError: there is no such column, or one is named twice.
    """
    names = [name.strip() for name in text.split(",")]
    for number, name in enumerate(names):
        check_column(name, known, "--columns")
        if name in names[:number]:
            raise UsageError(f"--columns names {name} twice")
    return names


def check_column(name: str, known: Sequence[str], option: str) -> str:
    """The name of a column.

    Raises:
        UsageError: there is no such column.
    """
    if name not in known:
        raise UsageError(
            f"{option}: there is no column {name!r}{near_match(name, known)}; "
            "report --to json has them all"
        )
    return name
