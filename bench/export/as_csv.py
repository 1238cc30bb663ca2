"""Rows as CSV (RFC 4180): a header line, absent values empty."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from bench.comparison import Cell, Row

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def to_csv(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """One line a row, in the columns' order, numbers in full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[_harmless(row[name]) for name in columns] for row in rows])
    return text.getvalue()


def _harmless(cell: Cell) -> Cell:
    """A text that a spreadsheet would run as a formula is marked as text by an apostrophe."""
    if isinstance(cell, str) and cell.startswith(_FORMULA_STARTS):
        return f"'{cell}"
    return cell
