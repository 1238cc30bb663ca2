"""Rows as a table in Markdown, as GitHub reads it: values for people, text in code spans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.analysis.columns import Row
from bench.analysis.headings import heading_of, is_text, rounding_of, unit_of
from bench.analysis.step_code import KERNELS_COLUMN, row_legend, row_marks
from bench.analysis.table import RowTable
from bench.analysis.units import Cell, format_cell
from bench.report.markdown_text import cell, code, table_row
from bench.text import encodable


def to_markdown(table: RowTable) -> str:
    """One table, or one per group, under a heading with the value that its rows share."""
    parts = []
    for value, rows in table.groups():
        if table.group_by is not None:
            name = code(value) if isinstance(value, str) else _value(table.group_by, value)
            parts.append(f"### {heading_of(table.group_by)}: {name}\n")
        parts.append("".join(f"{line}\n" for line in _lines(rows, table.columns)))
    return encodable("\n".join(parts))


def _lines(rows: Sequence[Row], columns: Sequence[str]) -> Iterator[str]:
    yield table_row([heading_of(name) for name in columns])
    yield table_row(["---" if is_text(name) else "---:" for name in columns])
    marks = row_marks(rows)
    for row, mark in zip(rows, marks, strict=True):
        yield table_row(
            [_value(name, row[name]) + mark * (name == KERNELS_COLUMN) for name in columns]
        )
    if KERNELS_COLUMN in columns and any(marks):
        yield f"\n{row_legend(rows)}"


def _value(name: str, value: Cell) -> str:
    """A column's value as a cell of the table."""
    if isinstance(value, str):
        return cell(value)
    return format_cell(value, unit_of(name), rounding_of(name))
