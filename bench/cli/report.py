"""`mnist-bench report`: read results again, as a table or for another tool."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bench import comparison, store
from bench.cli.output import write_document, write_folder
from bench.comparison import Benchmark
from bench.cost import parse_price, priced
from bench.export.as_bmf import to_bmf
from bench.export.as_csv import to_csv
from bench.export.as_github_action import to_github_action_bigger, to_github_action_smaller
from bench.export.as_json import to_json
from bench.export.as_mllog import to_mllog
from bench.export.as_pytest_benchmark import to_pytest_benchmark
from bench.export.points import Document
from bench.garbage import without_collector
from bench.notation import inert
from bench.store import RESULTS_DIR, Problem
from mnist_cnn.errors import UsageError


class Per(StrEnum):
    """What a row stands for."""

    RUN = "run"
    BENCHMARK = "benchmark"


class Format(StrEnum):
    """Where the rows go."""

    TERMINAL = "terminal"
    JSON = "json"
    CSV = "csv"
    HTML = "html"
    MLLOG = "mllog"
    PYTEST_BENCHMARK = "pytest-benchmark"
    BMF = "bmf"
    GITHUB_ACTION_SMALLER = "github-action-smaller"
    GITHUB_ACTION_BIGGER = "github-action-bigger"


_DOCUMENTS: dict[Format, Callable[[Sequence[Benchmark]], Document]] = {
    Format.PYTEST_BENCHMARK: to_pytest_benchmark,
    Format.BMF: to_bmf,
    Format.GITHUB_ACTION_SMALLER: to_github_action_smaller,
    Format.GITHUB_ACTION_BIGGER: to_github_action_bigger,
}
"""Other tools' formats that are one document each."""


def report(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Records, or folders of them (default: results/).", show_default=False),
    ] = None,
    per: Annotated[Per, typer.Option(help="What a row stands for.")] = Per.BENCHMARK,
    to: Annotated[Format, typer.Option(help="How to print it.")] = Format.TERMINAL,
    output: Annotated[
        Path | None,
        typer.Option(help="Write it there instead: to a file; mllog to a folder, a file a run."),
    ] = None,
    plots: Annotated[
        Path | None,
        typer.Option(help="Write the figures of --to html into this folder too, as SVG and PNG."),
    ] = None,
    clocks: Annotated[
        bool,
        typer.Option("--clocks", help="Times to target by four conventions, and what each omits."),
    ] = False,
    price_per_hour: Annotated[
        str | None,
        typer.Option(help="Of the machine, as 2.49 or '2.49 EUR': what reaching the target cost."),
    ] = None,
) -> None:
    """Print results from disk: a table, or the same numbers for another tool."""
    foreign = to is Format.MLLOG or to in _DOCUMENTS
    if to is Format.TERMINAL and output is not None:
        raise UsageError("--output is for other formats: name one with --to")
    if clocks and to is not Format.TERMINAL:
        raise UsageError("--clocks is for the terminal: leave --to out")
    if to is Format.HTML and per is Per.RUN:
        raise UsageError("a page has benchmarks and runs: leave --per out")
    if foreign and per is Per.RUN:
        raise UsageError(f"what --to {to} stands for is that format's: leave --per out")
    price = None if price_per_hour is None else parse_price(price_per_hour)
    if price is not None and (foreign or to is Format.HTML):
        raise UsageError(f"--to {to} has no place for a price: leave --price-per-hour out")
    if clocks and price is not None:
        raise UsageError("--price-per-hour is for the results: leave --clocks out")
    with without_collector():
        benchmarks, problems = _read(paths or [RESULTS_DIR])
        if to is Format.HTML or plots is not None:
            page = _drawn(benchmarks, problems, plots)
            if to is Format.HTML:
                write_document(page(), output)
                return
    if clocks:
        from bench import terminal

        terminal.show(terminal.clocks(benchmarks))
        return
    if to is Format.TERMINAL:
        # Rich takes a tenth of a second to load, and only the terminal needs it.
        from bench import terminal

        show = terminal.runs if per is Per.RUN else terminal.summary
        terminal.show(show(benchmarks, price))
        return
    if foreign:
        _hand_over(benchmarks, to, output)
        return
    if per is Per.RUN:
        rows, columns = comparison.run_rows(benchmarks), comparison.run_column_names()
    else:
        rows, columns = comparison.benchmark_rows(benchmarks), comparison.benchmark_column_names()
    if price is not None:
        rows, columns = priced(rows, columns, price)
    write_document(to_json(rows, columns) if to is Format.JSON else to_csv(rows, columns), output)


def _hand_over(benchmarks: Sequence[Benchmark], to: Format, output: Path | None) -> None:
    """Write another tool's format; says on stderr what it cannot hold."""
    if to is Format.MLLOG:
        logs = to_mllog(benchmarks)
        write_folder(logs.files, output)
        left_out = logs.left_out
    else:
        document = _DOCUMENTS[to](benchmarks)
        write_document(document.text, output)
        left_out = document.left_out
    for line in left_out:
        print(f"mnist-bench: not in {to}: {line}", file=sys.stderr)


def _drawn(
    benchmarks: Sequence[Benchmark], problems: Sequence[Problem], plots: Path | None
) -> Callable[[], str]:
    """Draw the figures, into files where these are wanted; gives what makes the page of them."""
    # Matplotlib takes most of a second to load, and only a page needs it.
    from bench.cli.plots import write_plots
    from bench.export.as_html import to_html
    from bench.export.figures import draw
    from bench.export.series import series

    found = series(benchmarks)
    outcomes = draw(found)
    if plots is not None:
        write_plots(outcomes, plots)
    return partial(to_html, found, outcomes, problems)


def _read(paths: list[Path]) -> tuple[list[Benchmark], list[Problem]]:
    """The benchmarks on disk, and what could not be read, which is said on stderr too.

    Raises:
        UsageError: there is nothing to report.
    """
    # Where nothing has been run yet there is no such folder; that is not a mistyped path.
    found = store.read(path for path in paths if path != RESULTS_DIR or path.exists())
    for problem in found.problems:
        print(f"{inert(str(problem.path))}: {problem.reason}", file=sys.stderr)
    if not found.records:
        where = ", ".join(inert(str(path)) for path in paths)
        raise UsageError(f"no run records in {where}: make some with `mnist-bench run`")
    return comparison.benchmarks(found.records), found.problems
