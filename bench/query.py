"""Which rows and columns of a table are wanted, and in which order.

Rows are left out, put in order and put together, and never summed up: what runs of several set-ups
have in common is no measurement.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bench.comparison import Cell, Row
from mnist_cnn.errors import UsageError, near_match


@dataclass(frozen=True, slots=True)
class Table:
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


def arranged(table: Table, sort: str | None, group_by: str | None) -> Table:
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
