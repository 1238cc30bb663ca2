"""Where a report goes that is not for the screen: a file, or a folder of files."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from bench.text import printable
from mnist_cnn.errors import UsageError

if TYPE_CHECKING:
    from bench.measure.progress import RunProgress
    from bench.report.html.figure_result import FigureResult


def write_document(text: str, path: Path | None) -> None:
    """Write a file, over what was there; without a path, to stdout.

    Raises:
        UsageError: it cannot be written.
    """
    if path is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")  # for programs, whatever the screen can show
        sys.stdout.write(text)
        return
    write_file(text.encode(), path)


def write_file(content: bytes, path: Path) -> None:
    """Write a file, over what was there.

    Raises:
        UsageError: it cannot be written.
    """
    if path.is_dir():
        raise UsageError(f"--output {printable(str(path))} is a folder: name a file in it")
    try:
        path.write_bytes(content)
    except OSError as error:
        raise _refusal(path, error) from error


def write_folder(files: Mapping[PurePosixPath, str], folder: Path | None) -> None:
    """Write files into a new or empty folder: old ones among them would pass for part of it.

    Raises:
        UsageError: there is no such folder to write to.
    """
    if folder is None:
        raise UsageError("this format is a file a run: name a new folder for them with --output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UsageError(f"--output {printable(str(folder))} is not empty: name a new folder")
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
    except FileExistsError as error:
        raise UsageError(
            f"--output {printable(str(folder))} is a file: this format needs a folder"
        ) from error
    except OSError as error:
        raise _refusal(folder, error) from error


def _refusal(path: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot write {printable(str(path))}: {error.strerror}")


def write_plots(outcomes: Sequence[FigureResult], folder: Path) -> None:
    """Each figure as SVG and PNG, over what was there; says on stderr which there is no data for.

    Raises:
        UsageError: they cannot be written there.
    """
    from bench.report.html import drawing
    from bench.report.html.figure_result import DrawnFigure

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for one in outcomes:
            if not isinstance(one, DrawnFigure):
                print(f"mnist-bench: no figure {one.title!r}: {one.reason}", file=sys.stderr)
                continue
            svg = drawing.to_svg(one.figure, one.name, one.title, one.description, alone=True)
            (folder / f"{one.name}.svg").write_bytes(svg.encode())
            (folder / f"{one.name}.png").write_bytes(drawing.to_png(one.figure))
    except OSError as error:
        raise UsageError(
            f"cannot write figures to {printable(str(folder))}: {error.strerror or error}"
        ) from error


def get_data(data_dir: Path | None, silent: bool) -> dict[str, str]:
    """Get what is missing of MNIST, before any clock runs.

    Returns:
        The SHA-256 of each file as it lies there.
    """
    from mnist_cnn.data.download import fetch

    if silent:
        report = fetch(data_dir)
    else:
        from bench.report.terminal import transfer_progress

        with transfer_progress() as progress:
            report = fetch(data_dir, progress=progress)
    return {file.name: file.sha256 for file in report.files}


def choose_progress(silent: bool, alone: bool) -> RunProgress:
    """The display that fits where stderr goes, and who else writes there."""
    from bench.measure.progress import RunProgress
    from bench.report.progress import PlainProgress, wants_live

    if silent:
        return RunProgress()
    if not alone or not wants_live(sys.stderr, os.environ):
        return PlainProgress()
    from bench.report.terminal import LiveProgress

    return LiveProgress()
