"""`mnist-bench data`: download and verify MNIST."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.output import notify
from bench.text import printable
from mnist_cnn.console import parse_path

EXAMPLES = (
    ("Get MNIST into the user's cache folder.", "mnist-bench data"),
    (
        "On a machine without network, from files that were brought there.",
        "mnist-bench data --from mnist-files --offline",
    ),
)


def data(
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Copy the files from this folder instead of downloading them.",
            parser=parse_path,
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of MNIST (default: the user's cache folder).",
            envvar="MNIST_DATA_DIR",
            parser=parse_path,
        ),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not use the network.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the files and their sources as JSON.")
    ] = False,
) -> None:
    """Download MNIST where it is missing, and verify every byte of it."""
    from bench.report.terminal import transfer_progress
    from mnist_cnn.data.download import ALREADY_HERE, fetch

    with transfer_progress() as progress:
        report = fetch(data_dir, source_dir=source, offline=offline, progress=progress)
    if as_json:
        files = [
            {
                "name": file.name,
                "source": file.source,
                "quarantined": file.quarantined and str(file.quarantined),
            }
            for file in report.files
        ]
        document = {
            "folder": str(report.folder),
            "files": files,
            "problems": [str(problem) for problem in report.problems],
        }
        print(json.dumps(document, indent=2))
        return
    for file in report.files:
        if file.quarantined:
            moved = printable(str(file.quarantined))
            print(f"{file.name}: the file here was not MNIST; it was moved to {moved}")
        where = file.source if file.source == ALREADY_HERE else f"from {file.source}"
        print(f"{file.name}: verified, {printable(where)}")
    for problem in report.problems:
        notify(problem)
