"""`mnist-bench publish`: the results folder's page, made again from its records."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from difflib import SequenceMatcher
from itertools import zip_longest
from pathlib import Path
from typing import Annotated

import typer

from bench.analysis.columns import shown_path
from bench.records import store
from bench.records.store import RESULTS_DIR
from bench.text import printable
from mnist_cnn.console import EXIT_FAILED
from mnist_cnn.errors import UsageError


def publish(
    results_dir: Annotated[
        Path, typer.Option(help="The records, and where the page goes.")
    ] = RESULTS_DIR,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Write nothing; exit 1 where the page is not what the records say."
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the files, or what differs in them, as JSON.")
    ] = False,
) -> int:
    """Make results/README.md again from the records, or check that it is what they say."""
    if not results_dir.is_dir():
        raise UsageError(
            f"no folder {printable(str(results_dir))}: make records with `mnist-bench run`, or "
            "name their folder with --results-dir"
        )
    found = store.read_records([results_dir])
    # What cannot be read is not published, and that must not go unnoticed.
    for problem in found.problems:
        print(f"{printable(str(problem.path))}: {problem.reason}", file=sys.stderr)
    if not found.records:
        raise UsageError(
            f"no run records in {printable(str(results_dir))}: make some with `mnist-bench run`"
        )
    agreed = not found.problems
    lines: list[str] = []
    for name, text in files(found, results_dir).items():
        path = results_dir / name
        if check:
            lines += differences(path, text)
        else:
            _write(path, text)
            lines.append(printable(str(shown_path(path))))
    agreed = agreed and not (check and lines)
    if as_json:
        problems = [printable(f"{problem.path}: {problem.reason}") for problem in found.problems]
        document = {"differences" if check else "files": lines, "problems": problems}
        print(json.dumps({"agreed": agreed, **document}, indent=2))
    else:
        for line in lines:
            print(line)
    return 0 if agreed else EXIT_FAILED


def files(found: store.ReadResult, results_dir: Path) -> dict[str, str]:
    """What is made from the records, by file name; a page in another format is one more line."""
    from bench.analysis import benchmarks
    from bench.analysis.result_tables import find_entries
    from bench.records.store import CHART_NAME, PAGE_NAME, REPORT_NAME
    from bench.report.html.figures import draw_figures
    from bench.report.html.page import to_html
    from bench.report.html.series import setup_series
    from bench.report.results_chart import draw_chart
    from bench.report.results_page import render_page

    rows = find_entries(found.records, results_dir)
    # The page lies beside the records, and is the same wherever the folder is.
    beside = [(Path(os.path.relpath(path, results_dir)), record) for path, record in found.records]
    seen = setup_series(benchmarks.group_runs(beside))
    report = to_html(seen, draw_figures(seen, results_dir), found.problems)
    return {PAGE_NAME: render_page(rows), CHART_NAME: draw_chart(rows), REPORT_NAME: report}


def differences(path: Path, text: str) -> Iterator[str]:
    """A line for each in which the file is not this text."""
    shown = printable(str(shown_path(path)))
    try:
        there = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        yield f"{shown}: cannot be read ({error.strerror}): make it with `mnist-bench publish`"
        return
    wanted = text.splitlines()
    for kind, a, b, c, d in SequenceMatcher(None, there, wanted, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        for number, (old, new) in enumerate(zip_longest(there[a:b], wanted[c:d]), start=a + 1):
            at = f"{shown}:{min(number, len(there) + 1)}"
            if new is None:
                yield f"{at}: not in the records: {printable(old or '')}"
            elif old is None:
                yield f"{at}: missing: {printable(new)}"
            else:
                yield f"{at}: {printable(old)} -> {printable(new)}"


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UsageError(f"cannot write {printable(str(path))}: {error.strerror}") from error
