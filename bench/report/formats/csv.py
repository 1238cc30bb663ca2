"""Rows as CSV (RFC 4180): a header line, absent values empty."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from bench.analysis.columns import Row
from bench.analysis.units import Cell

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def to_csv(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """One line a row, in the columns' order, numbers in full precision."""
    table = [columns, *([_harmless(row[name]) for name in columns] for row in rows)]
    return "".join(f"{_line(cells)}\n" for cells in table)


def _line(cells: Sequence[Cell]) -> str:
    text = io.StringIO(newline="")
    # Only a writer whose own lines end in both quotes a cell that holds either, before Python 3.13.
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n")


def _harmless(cell: Cell) -> Cell:
    """A text that a spreadsheet would run as a formula is marked as text by an apostrophe."""
    if isinstance(cell, str) and cell.startswith(_FORMULA_STARTS):
        return f"'{cell}"
    return cell
