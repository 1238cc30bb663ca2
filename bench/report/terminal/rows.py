"""Rows of any columns as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from bench.analysis.benchmarks import Benchmark
from bench.analysis.columns import Row
from bench.analysis.headings import LESSER, heading_of, is_text, rounding_of, unit_of
from bench.analysis.step_code import KERNELS_COLUMN, row_legend, row_marks
from bench.analysis.table import RowTable
from bench.report.terminal.notes import notes
from bench.report.terminal.results import value_text
from bench.report.terminal.tables import FittedTable, Section, TableColumn

_NARROWEST = 12
"""Width to which a column of text can be narrowed, in characters."""


def rows(table: RowTable, benchmarks: Sequence[Benchmark]) -> RenderableType:
    """The rows, and the notes on their benchmarks.

    A narrow terminal shows the first columns.
    """
    ordered: list[Row] = []
    marks: list[str] = []
    sections: list[Section] = []
    for value, group in table.groups():
        title = None
        if table.group_by is not None:
            group_name = value_text(value, unit_of(table.group_by)).plain
            title = Text(f"{heading_of(table.group_by)}: {group_name}", style="bold")
        sections.append(Section(len(ordered), len(ordered) + len(group), title))
        ordered += group
        marks += row_marks(group)
    marked = KERNELS_COLUMN in table.columns and any(marks)
    # Kernels that differ are no lesser matter: who does not see them takes code for a device.
    lesser = LESSER - {KERNELS_COLUMN} if marked else LESSER
    columns = [
        TableColumn(
            heading_of(name),
            [
                value_text(row[name], unit_of(name), rounding_of(name)).append(
                    mark if name == KERNELS_COLUMN else ""
                )
                for row, mark in zip(ordered, marks, strict=True)
            ],
            priority=number + len(table.columns) * (name in lesser),
            justify="left" if is_text(name) else "right",
            narrowest=_NARROWEST if is_text(name) else None,
        )
        for number, name in enumerate(table.columns)
    ]
    fitted = FittedTable(columns, sections, row_legend(table.rows) if marked else "")
    return Group(fitted, Text(), notes(benchmarks))
