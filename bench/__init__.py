"""The harness: clocks, records and tables around the `mnist_cnn` workload.

In a notebook, ``bench.load("results/")`` is the records as a DataFrame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from os import PathLike

    from pandas import DataFrame


def load(*paths: str | PathLike[str], per: Literal["run", "benchmark"] = "benchmark") -> DataFrame:
    """Records as a tidy table: a row a run or a benchmark, the columns of `report --to json`.

    Text is of dtype ``string``, counts ``Int64``, measurements ``Float64``; what is absent is
    ``pandas.NA``. Times are seconds, accuracies fractions; ``.attrs["units"]`` has the unit of
    every column, and ``.attrs["problems"]`` a line for each file that could not be read.

    Args:
        paths: records, folders of them or zip files (default: ``results``).
        per: what a row stands for.

    Raises:
        mnist_cnn.errors.UsageError: a path does not exist, or holds no record.

    Warns:
        UserWarning: files were found that are not among the rows.
    """
    # Here: pandas takes long to load, and nothing else in `bench` may wait for it.
    from bench.report.dataframe import to_dataframe

    return to_dataframe(paths, per)
