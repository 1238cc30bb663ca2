"""`mnist-bench publish`: regenerate the results folder's page from its records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bench.analysis.columns import shown_path
from bench.cli.output import show_problems
from bench.records import store
from bench.records.folders import RESULTS_DIR
from bench.records.publication import copy_records
from bench.text import printable
from mnist_cnn.console import EXIT_FAILED, parse_path
from mnist_cnn.disk import refusal_of, replace_file
from mnist_cnn.errors import UsageError

EXAMPLES = (
    (
        "Add this machine's records, and draw page and chart anew.",
        "mnist-bench publish results/local/*",
    ),
    ("Do the published files follow from the records?", "mnist-bench publish --check"),
)


def publish(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders of your own records to publish, such as results/local/<machine>.",
            show_default=False,
            parser=parse_path,
        ),
    ] = None,
    results_dir: Annotated[
        Path, typer.Option(help="Folder of the published records and the page.", parser=parse_path)
    ] = RESULTS_DIR,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Write nothing; exit with 1 if the files do not match the records."
        ),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print the names of the files, or the differences, as JSON."),
    ] = False,
) -> int:
    """Regenerate the results page from its records, or check it.

    It is results/README.md, with its chart and report, and the table of results in the README.md
    beside results/, where that has one. Records of PATHS are copied to the published ones first;
    without PATHS no records are added.
    """
    if paths and check:
        raise UsageError("--check writes nothing: leave the folders out")
    for folder in copy_records(paths or [], results_dir):
        if not as_json:
            print(printable(str(shown_path(folder))))
    if not results_dir.is_dir():
        raise UsageError(
            f"no folder {printable(str(results_dir))}: make records with `mnist-bench run` and "
            "publish them by name, or name their folder with --results-dir"
        )
    # Lazy: matplotlib is slow to import.
    from bench.report.publish import find_differences, render_files
    from bench.report.results_block import render_block

    results = store.read_records([results_dir])
    show_problems(results.problems)
    if not results.records:
        raise UsageError(
            f"no run records in {printable(str(results_dir))}: publish yours by name, as in "
            "`mnist-bench publish results/local/<machine>`"
        )
    lines: list[str] = []
    files = {results_dir / name: text for name, text in render_files(results, results_dir).items()}
    for path, text in (files | render_block(results, results_dir)).items():
        if check:
            lines += find_differences(path, text)
        else:
            _write(path, text)
            lines.append(printable(str(shown_path(path))))
    # A record that cannot be read is not published, so the files are incomplete.
    agreed = not results.problems and not (check and lines)
    if as_json:
        problems = [printable(f"{problem.path}: {problem.reason}") for problem in results.problems]
        document = {"differences" if check else "files": lines, "problems": problems}
        print(json.dumps({"agreed": agreed, **document}, indent=2))
    else:
        for line in lines:
            print(line)
    return 0 if agreed else EXIT_FAILED


def _write(path: Path, text: str) -> None:
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise UsageError(f"cannot write {printable(str(path))}: {refusal_of(error)}") from error
