"""One row a machine and division as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

from rich.console import Group, RenderableType
from rich.text import Text

from bench.analysis.standings import HEADINGS, Shown, Standing, caption
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
    for row in chain.from_iterable(divisions.values()):
        if not row.is_official:
            parts.append(Text(printable(f"! {row.machine} {row.remark}"), style="yellow"))
    return Group(*parts, Text(caption(divisions), style="dim"))


def _table(rows: Sequence[Standing]) -> FittedTable:
    machine, *headings, measured_with = HEADINGS
    _, *priorities, last = _PRIORITIES
    marked = [f"{'' if row.is_official else '! '}{row.name}" for row in rows]
    values = zip(*(row.values for row in rows), strict=True)
    columns = [
        _words(machine, marked, 0),
        *(
            TableColumn(heading, [*map(_value, shown)], priority)
            for heading, shown, priority in zip(headings, values, priorities, strict=True)
        ),
        _words(measured_with, [row.measured_with for row in rows], last),
    ]
    return FittedTable(columns, [Section(0, len(rows))], elsewhere="; a wider terminal shows them")


def _words(heading: str, texts: Sequence[str], priority: int) -> TableColumn:
    cells = [Text(printable(text)) for text in texts]
    return TableColumn(heading, cells, priority, justify="left", narrowest=_NARROWEST)


def _value(shown: Shown) -> Text:
    """The value, and its interval below it."""
    text = Text(shown.value)
    return text.append(f"\n{shown.interval}", style="dim") if shown.interval else text
