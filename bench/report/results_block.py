"""The table of results within the page above the results folder: one row a machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.analysis.benchmarks import group_runs, pool_single_runs
from bench.analysis.standings import HEADINGS, OTHER_RECIPE, Standing, standings
from bench.records.folders import RESULTS_DIR
from bench.records.store import LARGEST_PAGE_BYTES, PAGE_NAME, ReadResult
from bench.report.markdown_text import cell, table_row
from bench.text import MISSING
from mnist_cnn.disk import read_file

START = "<!-- results: made by `mnist-bench publish` -->\n"
END = "<!-- end of results -->\n"
_TIME = "to 99.4 %"
_SHOWN = (_TIME, "a success", "reached", "accuracy", "images/s")
"""Columns of the open division: those of `HEADINGS` that fit on a page beside the machine."""
_CLOSED, _TORCH = "closed division", "by torch"
"""The last columns: the time to target in the other division, and the device number."""


def render_block(results: ReadResult, results_dir: Path) -> dict[Path, str]:
    """The page above the results folder with the table of today; empty where no page has one.

    Args:
        results: the records of the folder.
        results_dir: the folder, which must be called as the project's is.
    """
    folder = results_dir if results_dir.name else results_dir.resolve()
    page = folder.parent / PAGE_NAME
    try:
        before, start, rest = read_file(page, LARGEST_PAGE_BYTES).decode().partition(START)
    except (OSError, UnicodeDecodeError):
        return {}
    _, end, after = rest.partition(END)
    if folder.name != RESULTS_DIR.name or not start or not end:
        return {}
    benchmarks = pool_single_runs(group_runs(results.records))
    table = "\n".join(_lines(standings(("", one) for one in benchmarks)))
    return {page: f"{before}{start}\n{table}\n\n{end}{after}"}


def _lines(divisions: Mapping[str, Sequence[Standing]]) -> list[str]:
    in_open, in_closed = (
        {row.machine: row for row in divisions.get(name, ())} for name in ("open", "closed")
    )
    headings = ("machine", *_SHOWN, _CLOSED, _TORCH)
    return [
        table_row(headings),
        f"| --- |{' ---: |' * (len(headings) - 1)}",
        *(
            _row(machine, in_open.get(machine), in_closed.get(machine))
            for machine in dict.fromkeys((*in_open, *in_closed))
        ),
    ]


def _row(machine: str, in_open: Standing | None, in_closed: Standing | None) -> str:
    opened, closed = _values(in_open), _values(in_closed)
    shown = [opened.get(heading, MISSING) for heading in _SHOWN]
    closed_time = closed.get(_TIME, MISSING) + _mark(in_closed)
    torch = (opened or closed)[_TORCH]  # of the machine, whatever the division
    return table_row([cell(machine) + _mark(in_open), *shown, closed_time, torch])


def _values(row: Standing | None) -> dict[str, str]:
    """The text of each column, the time to target with its interval; empty without a row."""
    if row is None:
        return {}
    texts = {name: one.value for name, one in zip(HEADINGS[1:], row.values, strict=False)}
    if interval := row.values[0].interval:
        texts[_TIME] += f" ({interval})"
    return texts


def _mark(row: Standing | None) -> str:
    if row is None:
        return ""
    doubtful = "" if row.is_official else " **!**"
    return doubtful + (f" {OTHER_RECIPE}" if row.has_other_recipe else "")
