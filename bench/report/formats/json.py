"""Rows as JSON: a list of objects, absent values null."""

from __future__ import annotations

import json
from collections.abc import Sequence

from bench.analysis.columns import Row


def to_json(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """One object a row, its keys in the columns' order, numbers in full precision.

    ASCII only: it can be printed whatever the terminal's encoding, and holds no control
    characters.
    """
    objects = [{name: row[name] for name in columns} for row in rows]
    return json.dumps(objects, indent=2, allow_nan=False) + "\n"
