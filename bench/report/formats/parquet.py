"""Rows as a Parquet file: typed columns, absent values null, each column's unit in its metadata."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.analysis.columns import Row
from bench.analysis.headings import is_text, is_whole, meaning_of
from bench.analysis.units import Cell
from bench.text import encodable
from mnist_cnn.errors import UsageError
from mnist_cnn.escaping import printable_lines

if TYPE_CHECKING:
    import pyarrow


def to_parquet(rows: Sequence[Row], columns: Sequence[str]) -> bytes:
    """The whole file: text, 64-bit integers and 64-bit floats.

    Raises:
        UsageError: pyarrow is not installed.
    """
    try:
        # Lazy: pyarrow is an optional dependency, and slow to import.
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError(
            "--to parquet needs pyarrow: pip install pyarrow, or take --to csv"
        ) from error
    schema = pyarrow.schema(
        [
            pyarrow.field(name, _type(pyarrow, name), metadata={"unit": meaning_of(name)})
            for name in columns
        ]
    )
    arrays = [
        pyarrow.array([_storable(row[name]) for row in rows], type=field.type)
        for name, field in zip(columns, schema, strict=True)
    ]
    file = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_arrays(arrays, schema=schema), file)
    return file.getvalue()


def _type(pyarrow: pyarrow, name: str) -> pyarrow.DataType:
    if is_text(name):
        return pyarrow.string()
    return pyarrow.int64() if is_whole(name) else pyarrow.float64()


def _storable(cell: Cell) -> Cell:
    return printable_lines(encodable(cell)) if isinstance(cell, str) else cell
