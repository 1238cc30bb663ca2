"""Rows as JSON: a list of objects, absent values null."""

from __future__ import annotations

import json
from collections.abc import Sequence

from bench.analysis.columns import Row


def to_json(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """One object per row, its keys in the columns' order, numbers in full precision."""
    return encode([{name: row[name] for name in columns} for row in rows])


def encode(value: object) -> str:
    """The value as indented JSON, with a line break at the end.

    It is ASCII, so that any terminal can print it, and holds no control characters.

    Raises:
        ValueError: it holds NaN or an infinity, which JSON does not have.
    """
    return json.dumps(value, indent=2, allow_nan=False) + "\n"
