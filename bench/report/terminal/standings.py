"""One row a machine and division as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from bench.analysis import standings
from bench.analysis.standings import CAPTION, HEADINGS, Standing
from bench.report.terminal.tables import FittedTable, Section, TableColumn
from bench.text import printable

_PRIORITIES = (0, 0, 2, 1, 4, 3, 5, 6, 7)
"""By heading: a narrow terminal leaves out the column with the highest one first."""
_NARROWEST = 16
"""Width to which a column of words can be narrowed, in characters."""


def standings_table(divisions: Mapping[str, Sequence[Standing]]) -> RenderableType:
    """A table a division, the rules, and what speaks against rows that are not official."""
    parts: list[RenderableType] = []
    for division, rows in divisions.items():
        parts += [Text(f"{division} division", style="bold"), _table(rows), Text()]
    lines = [line for rows in divisions.values() for line in standings.remarks(rows)]
    parts += [Text(f"! {printable(line)}", style="yellow") for line in lines]
    return Group(*parts, Text(CAPTION, style="dim"))


def _table(rows: Sequence[Standing]) -> FittedTable:
    machines, *numbers, measured_with = zip(*map(standings.cells, rows), strict=True)
    marks = ("" if row.is_official else "! " for row in rows)
    named = [Text(mark + printable(name)) for mark, name in zip(marks, machines, strict=True)]
    values = [[_value(text) for text in column] for column in numbers]
    last = [Text(printable(text)) for text in measured_with]
    columns = [
        TableColumn(
            heading,
            cells,
            priority=priority,
            justify="left" if cells in (named, last) else "right",
            narrowest=_NARROWEST if cells in (named, last) else None,
        )
        for heading, cells, priority in zip(
            HEADINGS, [named, *values, last], _PRIORITIES, strict=True
        )
    ]
    return FittedTable(columns, [Section(0, len(rows))], elsewhere="; a wider terminal shows them")


def _value(text: str) -> Text:
    """The value, and its interval below it."""
    value, _, interval = text.partition(" (")
    return Text(value).append(f"\n{interval.rstrip(')')}", style="dim") if interval else Text(value)
