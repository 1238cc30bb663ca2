"""Records as a pandas DataFrame: the columns of every other format, with their types."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import pandas

from bench.analysis.benchmarks import group_runs, pool_single_runs
from bench.analysis.columns import Row, benchmark_column_names, run_column_names
from bench.analysis.headings import is_text, is_whole, meaning_of
from bench.analysis.rows import benchmark_rows, run_rows
from bench.analysis.run_sets import find_runs, known_floors, known_runs, unreadable_files
from bench.analysis.set_comparison import DEFAULT_DIFFERENCE, compare_sets
from bench.records import store
from bench.records.folders import LOCAL_DIR, existing_dirs
from bench.report.formats.comparisons import METRIC_COLUMNS, metric_rows
from bench.text import count_of, printable
from mnist_cnn.errors import UsageError, near_match

_PER = ("run", "benchmark")


def to_dataframe(paths: Sequence[str | PathLike[str]], per: str) -> pandas.DataFrame:
    """The table that `bench.load` returns.

    Raises:
        UsageError: `per` is neither "run" nor "benchmark", a path does not exist, or it holds no
            record.
    """
    if per not in _PER:
        raise UsageError(f"per must be 'run' or 'benchmark', not {per!r}{near_match(per, _PER)}")
    folders = [Path(path) for path in paths] or existing_dirs() or [LOCAL_DIR]
    contents = store.read_records(folders)
    problems = [printable(f"{problem.path}: {problem.reason}") for problem in contents.problems]
    if not contents.records:
        where = ", ".join(printable(str(path)) for path in folders)
        raise UsageError(f"no run records in {where}" + "".join(f"; {p}" for p in problems[:1]))
    benchmarks = pool_single_runs(group_runs(contents.records))
    if per == "run":
        table = _table(run_rows(benchmarks), run_column_names())
    else:
        table = _table(benchmark_rows(benchmarks), benchmark_column_names())
    table.attrs["problems"] = problems
    if problems:
        warnings.warn(
            f"{count_of(len(problems), 'file')} not among the rows, see .attrs['problems']: "
            f"{problems[0]}",
            stacklevel=3,  # the line that calls `bench.load`
        )
    return table


def runs_frame(rows: Sequence[Row]) -> pandas.DataFrame:
    """The table that `bench.run` returns, of the rows that `run --json` prints."""
    return _table(rows, run_column_names())


def comparison_frame(base: str, others: Sequence[str], folders: Sequence[Path]) -> pandas.DataFrame:
    """The table that `bench.compare` returns.

    Raises:
        UsageError: a name names no runs, or runs cannot be compared.
    """
    base_runs = find_runs(base, folders)
    sides = [find_runs(name, folders) for name in others]
    compared = compare_sets(
        base_runs,
        sides,
        DEFAULT_DIFFERENCE,
        known_floors(base_runs, folders),
        lambda: known_runs([base_runs, *sides], folders),
    )
    table = pandas.DataFrame(metric_rows(compared), columns=list(METRIC_COLUMNS), dtype=object)
    table = table.astype(METRIC_COLUMNS)
    table.attrs["problems"] = list(unreadable_files(base_runs, *sides))
    return table


def _table(rows: Sequence[Row], columns: Sequence[str]) -> pandas.DataFrame:
    # Objects first: pandas would convert whole numbers beside None to floats.
    table = pandas.DataFrame(rows, columns=list(columns), dtype=object)
    table = table.astype({name: _dtype(name) for name in columns})
    table.attrs["units"] = {name: meaning_of(name) for name in columns}
    return table


def _dtype(name: str) -> str:
    if is_text(name):
        return "string"
    return "Int64" if is_whole(name) else "Float64"
