"""`mnist-bench data`: get and verify MNIST."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def data(
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Copy the files from this folder instead of the network."),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where MNIST is kept (default: the user's cache folder).",
            envvar="MNIST_DATA_DIR",
        ),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no network.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the files and where they came from as JSON.")
    ] = False,
) -> None:
    """Get MNIST if it is not here yet, and check every byte of it."""
    from bench.report.terminal import transfer_progress
    from mnist_cnn.data.download import ALREADY_HERE, fetch

    with transfer_progress() as progress:
        report = fetch(data_dir, source_dir=source, offline=offline, progress=progress)
    if as_json:
        files = [
            {"name": one.name, "source": one.source, "quarantined": _text(one.quarantined)}
            for one in report.files
        ]
        document = {"files": files, "problems": [str(problem) for problem in report.problems]}
        print(json.dumps({"folder": str(report.folder), **document}, indent=2))
        return
    for file in report.files:
        if file.quarantined:
            print(f"{file.name}: what was here was not MNIST; kept as {file.quarantined}")
        where = file.source if file.source == ALREADY_HERE else f"from {file.source}"
        print(f"{file.name}: verified, {where}")
    for problem in report.problems:
        print(problem, file=sys.stderr)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
