"""The files that `publish` makes from the records of a folder, and how files on disk differ."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import zip_longest
from pathlib import Path

from bench.analysis import benchmarks
from bench.analysis.columns import shown_path
from bench.analysis.result_tables import ResultEntry, find_entries
from bench.analysis.standings import standings
from bench.records.store import (
    CHART_NAME,
    LARGEST_PAGE_BYTES,
    PAGE_NAME,
    REPORT_NAME,
    ReadResult,
)
from bench.report.html.figures import draw_figures
from bench.report.html.page import to_html
from bench.report.html.series import setup_series
from bench.report.results_chart import draw_chart
from bench.report.results_page import render_page
from bench.text import printable
from mnist_cnn.disk import read_file
from mnist_cnn.errors import reason_of

_MOST_LINES = 20_000
"""Most lines of a file whose changes are looked for."""


def render_files(results: ReadResult, results_dir: Path) -> dict[str, str]:
    """The text of every published file, by file name. A new file is one more entry here.

    Args:
        results: the records of the folder.
        results_dir: the folder.
    """
    entries = find_entries(results.records, results_dir)
    # Relative paths: the files are the same wherever the folder is.
    relative_runs = [
        (Path(os.path.relpath(path, results_dir)), record) for path, record in results.records
    ]
    series = setup_series(benchmarks.group_runs(relative_runs))
    report = to_html(series, draw_figures(series, results_dir), results.problems)
    return {
        PAGE_NAME: render_page(entries),
        CHART_NAME: draw_chart(standing_entries(entries)),
        REPORT_NAME: report,
    }


def standing_entries(entries: Sequence[ResultEntry]) -> list[ResultEntry]:
    """The rows that stand for a machine; the others would hide them in the chart."""
    divisions = standings((entry.id, entry.benchmark) for entry in entries)
    chosen = [row.benchmark for rows in divisions.values() for row in rows]
    return [entry for entry in entries if any(entry.benchmark is one for one in chosen)]


def _changes(actual: list[str], expected: list[str]) -> Sequence[tuple[str, int, int, int, int]]:
    """Which lines differ, as `SequenceMatcher.get_opcodes` says it."""
    if len(actual) > _MOST_LINES:  # to match so many takes hours, and none was written by `publish`
        return [("replace", 0, len(actual), 0, len(expected))]
    return SequenceMatcher(None, actual, expected, autojunk=False).get_opcodes()


def find_differences(path: Path, expected: str) -> Iterator[str]:
    """One message for each line in which a file differs from the expected text."""
    name = printable(str(shown_path(path)))
    try:
        content = read_file(path, LARGEST_PAGE_BYTES)
    except OSError as error:
        yield f"{name}: cannot be read ({reason_of(error)}): make it with `mnist-bench publish`"
        return
    actual_lines = content.decode(errors="replace").splitlines()
    expected_lines = expected.splitlines()
    for kind, start, stop, new_start, new_stop in _changes(actual_lines, expected_lines):
        if kind == "equal":
            continue
        pairs = zip_longest(actual_lines[start:stop], expected_lines[new_start:new_stop])
        for number, (actual, wanted) in enumerate(pairs, start=start + 1):
            place = f"{name}:{min(number, len(actual_lines) + 1)}"
            if actual == wanted:
                continue
            if wanted is None:
                yield f"{place}: not in the records: {printable(actual or '')}"
            elif actual is None:
                yield f"{place}: missing: {printable(wanted)}"
            else:
                yield f"{place}: {printable(actual)} -> {printable(wanted)}"
