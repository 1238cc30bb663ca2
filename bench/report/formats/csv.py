"""Rows as CSV (RFC 4180): a header line, absent values empty."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from bench.analysis.columns import Row
from bench.analysis.units import Cell
from mnist_cnn.escaping import printable_lines

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def to_csv(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """One line per row, in the columns' order, numbers in full precision."""
    table = [columns, *([_escape_formula(row[name]) for name in columns] for row in rows)]
    return "".join(f"{_line(cells)}\n" for cells in table)


def _line(cells: Sequence[Cell]) -> str:
    line = io.StringIO(newline="")
    # Before Python 3.13 a writer quotes cells with \r or \n only if its own lines end in both.
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue().removesuffix("\r\n")


def _escape_formula(cell: Cell) -> Cell:
    """Mark text that a spreadsheet would run as a formula with an apostrophe."""
    if not isinstance(cell, str):
        return cell
    text = printable_lines(cell)
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text
