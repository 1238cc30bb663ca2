"""Rows as a table in Markdown, as GitHub reads it: values for people, text in code spans.

In a code span nothing that a record says is obeyed: no HTML, no link, no mention.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.analysis.columns import Row
from bench.analysis.headings import heading_of, is_text, unit_of
from bench.analysis.table import RowTable
from bench.analysis.units import Cell, format_cell
from bench.report.results_page import cell, code
from bench.text import MISSING


def to_markdown(table: RowTable) -> str:
    """One table, or one a group under a heading that says what its rows have in common."""
    parts = []
    for value, rows in table.groups():
        if table.group_by is not None:
            shown = code(value) if isinstance(value, str) else _written(table.group_by, value)
            parts.append(f"### {heading_of(table.group_by)}: {shown}\n")
        parts.append("".join(f"{line}\n" for line in _lines(rows, table.columns)))
    # What could be no UTF-8 file: half of a pair of surrogates, in a record's text.
    return "\n".join(parts).encode("utf-8", "replace").decode("utf-8")


def _lines(rows: Sequence[Row], columns: Sequence[str]) -> Iterator[str]:
    yield _line([heading_of(name) for name in columns])
    yield _line(["---" if is_text(name) else "---:" for name in columns])
    for row in rows:
        yield _line([_written(name, row[name]) for name in columns])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _written(name: str, value: Cell) -> str:
    if value is None:
        return MISSING
    return cell(value) if isinstance(value, str) else format_cell(value, unit_of(name))
