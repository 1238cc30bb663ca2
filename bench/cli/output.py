"""Where output goes: files, folders, and lines for people on stderr."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from bench.text import printable
from mnist_cnn.errors import UsageError

if TYPE_CHECKING:
    from bench.measure.progress import RunProgress
    from bench.records.store import UnreadableFile
    from bench.report.html.figure_result import FigureResult


def notify(line: str) -> None:
    """Print a line on stderr at once, for people."""
    print(line, file=sys.stderr, flush=True)


def show_problems(problems: Iterable[UnreadableFile]) -> None:
    """Print which files cannot be read, and why, on stderr."""
    for problem in problems:
        notify(f"{printable(str(problem.path))}: {problem.reason}")


def write_document(text: str, path: Path | None) -> None:
    """Write text to a file, which is replaced, or to stdout if there is no path.

    Raises:
        UsageError: the file cannot be written.
    """
    if path is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(
                encoding="utf-8"
            )  # for programs: the terminal's encoding may be smaller
        sys.stdout.write(text)
        return
    write_file(text.encode(), path)


def write_file(content: bytes, path: Path, option: str = "--output") -> None:
    """Write bytes to a file, which is replaced.

    Args:
        content: the bytes.
        path: the file.
        option: the option that named the file, for messages.

    Raises:
        UsageError: the file cannot be written.
    """
    if path.is_dir():
        raise UsageError(f"{option} {printable(str(path))} is a folder: name a file in it")
    try:
        path.write_bytes(content)
    except OSError as error:
        raise _write_error(path, error) from error


def write_folder(files: Mapping[PurePosixPath, str], folder: Path | None) -> None:
    """Write files into a new or empty folder. Older files would look like part of the result.

    Raises:
        UsageError: no folder is given, or it is not empty or cannot be written.
    """
    if folder is None:
        raise UsageError("this format is one file per run: name a new folder with --output")
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
        raise _write_error(folder, error) from error


def _write_error(path: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot write {printable(str(path))}: {error.strerror}")


def write_plots(results: Sequence[FigureResult], folder: Path) -> None:
    """Write each figure as SVG and PNG, and name the figures without data on stderr.

    Raises:
        UsageError: the figures cannot be written.
    """
    from bench.report.html import drawing
    from bench.report.html.figure_result import DrawnFigure

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for result in results:
            if not isinstance(result, DrawnFigure):
                notify(f"mnist-bench: no figure {result.title!r}: {result.reason}")
                continue
            svg = drawing.to_svg(
                result.figure, result.name, result.title, result.description, alone=True
            )
            (folder / f"{result.name}.svg").write_bytes(svg.encode())
            (folder / f"{result.name}.png").write_bytes(drawing.to_png(result.figure))
    except OSError as error:
        raise UsageError(
            f"cannot write figures to {printable(str(folder))}: {error.strerror or error}"
        ) from error


def get_data(data_dir: Path | None, silent: bool) -> dict[str, str]:
    """Download the missing MNIST files, before any clock starts.

    Args:
        data_dir: folder of MNIST; None for the default.
        silent: whether to show no progress.

    Returns:
        The SHA-256 of each file, by name.
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
    """The progress display for this terminal.

    Args:
        silent: whether to show nothing.
        alone: whether no other process writes to the same terminal.
    """
    from bench.measure.progress import RunProgress
    from bench.report.progress import PlainProgress, wants_live

    if silent:
        return RunProgress()
    if not alone or not wants_live(sys.stderr, os.environ):
        return PlainProgress()
    from bench.report.terminal import LiveProgress

    return LiveProgress()
