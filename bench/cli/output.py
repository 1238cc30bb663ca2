"""Where output goes: files, folders, and lines for people on stderr."""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from bench.text import count_of, printable
from mnist_cnn.disk import refusal_of, replace_file, write_new_file
from mnist_cnn.errors import UsageError

if TYPE_CHECKING:
    from bench.launch.result import BenchmarkResult
    from bench.measure.progress import RunProgress
    from bench.records.store import UnreadableFile
    from bench.report.html.figure_result import FigureResult


_SHOWN_PROBLEMS = 20
"""Most files that are named one by one: a zip file may hold very many that are no records."""
_STDOUT = ("-", "/dev/stdout")
"""Values of --output that name stdout."""


def notify(line: str) -> None:
    """Print a line on stderr at once, for people."""
    print(printable(line), file=sys.stderr, flush=True)


def show_problems(problems: Iterable[UnreadableFile]) -> None:
    """Print which files cannot be read, and why, on stderr; second copies of runs as one line."""
    from bench.records.store import is_second_copy

    shown = list(problems)
    copies = [problem for problem in shown if is_second_copy(problem)]
    # Each published record has a copy in results/local: a line each would hide the other lines.
    if len(copies) > 1:
        shown = [problem for problem in shown if not is_second_copy(problem)]
        notify(
            f"{count_of(len(copies), 'file')} hold the same runs as others, such as "
            f"{copies[0].path}: counted once"
        )
    for problem in shown[:_SHOWN_PROBLEMS]:
        notify(f"{problem.path}: {problem.reason}")
    if (more := len(shown) - _SHOWN_PROBLEMS) > 0:
        notify(f"and {count_of(more, 'file')} more that cannot be read")


def output_path(path: Path | None) -> Path | None:
    """The file that --output names; None for stdout, which has the name ``-`` too."""
    return None if path is not None and str(path) in _STDOUT else path


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
        UsageError: the file cannot be written, or it is a link.
    """
    try:
        mode = path.stat().st_mode if path.exists() else stat.S_IFREG
        if stat.S_ISDIR(mode):
            raise UsageError(f"{option} {printable(str(path))} is a folder: name a file in it")
        if stat.S_ISREG(mode):
            replace_file(path, content)
        else:
            path.write_bytes(content)  # a pipe or a device, such as /dev/null
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
            write_new_file(path, text.encode())
    except FileExistsError as error:
        raise UsageError(
            f"--output {printable(str(folder))} is a file: this format needs a folder"
        ) from error
    except OSError as error:
        raise _write_error(folder, error) from error


def _write_error(path: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot write {printable(str(path))}: {refusal_of(error)}")


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
            replace_file(folder / f"{result.name}.svg", svg.encode())
            replace_file(folder / f"{result.name}.png", drawing.to_png(result.figure))
    except OSError as error:
        raise UsageError(
            f"cannot write figures to {printable(str(folder))}: {refusal_of(error)}"
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


def choose_progress(*, is_main: bool, silent: bool, alone: bool) -> RunProgress:
    """The progress display for this terminal.

    Args:
        is_main: whether this is the process that speaks for all ranks.
        silent: whether to show nothing but failures.
        alone: whether no other process writes to the same terminal.
    """
    from bench.measure.progress import RunProgress
    from bench.report.progress import FailureProgress, PlainProgress, wants_live

    if not is_main:
        return RunProgress()
    if silent:
        return FailureProgress()
    if not alone or not wants_live(sys.stderr, os.environ):
        return PlainProgress()
    from bench.report.terminal import LiveProgress

    return LiveProgress()


def print_runs(result: BenchmarkResult, *, as_json: bool) -> None:
    """Print the runs of a benchmark, as a table or as JSON."""
    from bench.analysis.benchmarks import group_runs
    from bench.analysis.columns import run_column_names
    from bench.analysis.rows import run_rows
    from bench.analysis.standings import runs_to_become_official

    benchmarks = group_runs(result.runs)
    if as_json:
        from bench.report.formats.json import to_json

        sys.stdout.write(to_json(run_rows(benchmarks), run_column_names()))
        return
    from bench.report import terminal

    terminal.show(terminal.summary(benchmarks))
    for benchmark in benchmarks:
        if runs := runs_to_become_official(benchmark):
            print(f"> A machine's row among the results takes {runs} runs: --runs {runs}")
