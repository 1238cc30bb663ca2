"""`mnist-bench report`: read results again, as a table or for another tool."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bench.analysis import benchmarks
from bench.analysis.benchmarks import Benchmark
from bench.analysis.cost import parse_price
from bench.analysis.selection import TableRequest, readable_columns, select_rows
from bench.analysis.table import RowTable
from bench.cli.output import write_document, write_file, write_folder
from bench.records import store
from bench.records.store import RESULTS_DIR, UnreadableFile, gc_paused
from bench.report.formats.bencher import to_bmf
from bench.report.formats.csv import to_csv
from bench.report.formats.github_action import to_github_action_bigger, to_github_action_smaller
from bench.report.formats.json import to_json
from bench.report.formats.markdown import to_markdown
from bench.report.formats.mllog import to_mllog
from bench.report.formats.parquet import to_parquet
from bench.report.formats.pytest_benchmark import to_pytest_benchmark
from bench.report.formats.tracked import Document
from bench.text import count_of, printable
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
    MARKDOWN = "markdown"
    PARQUET = "parquet"
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
_OF_ROWS = (Format.JSON, Format.CSV, Format.MARKDOWN, Format.PARQUET)
"""Formats of which the rows and columns are the user's choice."""


def report(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Records, folders of them or zip files (default: results/).", show_default=False
        ),
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
    scaling: Annotated[
        bool, typer.Option("--scaling", help="What more processes brought, with intervals.")
    ] = False,
    price_per_hour: Annotated[
        str | None,
        typer.Option(help="Of the machine, as 2.49 or '2.49 EUR': what reaching the target cost."),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option("--filter", help="Rows: 'device == \"cuda\" and processes > 1'."),
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="These columns, as recipe,seed; --to json has all.")
    ] = None,
    sort: Annotated[
        str | None, typer.Option(help="By this column, least first; -COLUMN: largest first.")
    ] = None,
    group_by: Annotated[
        str | None, typer.Option(help="Put the rows of one value of this column together.")
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(help="A label: how fast every row is, relative to the runs of that name."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --to json.")] = False,
) -> None:
    """Print results from disk: a table, or the same numbers for another tool."""
    to = _format(to, as_json)
    wishes = TableRequest(
        per_run=per is Per.RUN,
        price=None if price_per_hour is None else parse_price(price_per_hour),
        baseline=baseline,
        where=where,
        columns=columns,
        sort=sort,
        group_by=group_by,
    )
    if scaling:
        _check_scaling(wishes, to, plots, clocks)
    _check(wishes, to, output, clocks)
    with gc_paused():
        benchmarks, problems = _read(paths or [RESULTS_DIR])
        if scaling:
            if where is not None:
                benchmarks = list(select_rows(benchmarks, wishes).benchmarks)
            _scaling(benchmarks, to, output)
            return
        table: RowTable | None = None
        if to in _OF_ROWS or wishes.for_rows or where is not None:
            chosen = select_rows(benchmarks, wishes)
            benchmarks, table = list(chosen.benchmarks), chosen.table
        if to is Format.HTML or plots is not None:
            page = _drawn(benchmarks, problems, plots)
            if to is Format.HTML:
                write_document(page(), output)
                return
    if to in _DOCUMENTS or to is Format.MLLOG:
        _hand_over(benchmarks, to, output)
    elif to is Format.TERMINAL:
        _show(benchmarks, table, wishes, clocks)
    else:
        assert table is not None
        _write_rows(table, wishes, to, output)


def _format(to: Format, as_json: bool) -> Format:
    if as_json and to not in (Format.TERMINAL, Format.JSON):
        raise UsageError(f"--json is --to json: leave it or --to {to} out")
    return Format.JSON if as_json else to


def _check(wishes: TableRequest, to: Format, output: Path | None, clocks: bool) -> None:
    """Refuse what does not go together.

    Raises:
        UsageError: with what to leave out.
    """
    foreign = to is Format.MLLOG or to in _DOCUMENTS
    if to is Format.TERMINAL and output is not None:
        raise UsageError("--output is for other formats: name one with --to")
    if to is Format.PARQUET and output is None:
        raise UsageError("--to parquet is no text: name a file for it with --output")
    if clocks and to is not Format.TERMINAL:
        raise UsageError("--clocks is for the terminal: leave --to out")
    if to is Format.HTML and wishes.per_run:
        raise UsageError("a page has benchmarks and runs: leave --per out")
    if foreign and wishes.per_run:
        raise UsageError(f"what --to {to} stands for is that format's: leave --per out")
    if wishes.price is not None and (foreign or to is Format.HTML):
        raise UsageError(f"--to {to} has no place for a price: leave --price-per-hour out")
    if clocks and wishes.price is not None:
        raise UsageError("--price-per-hour is for the results: leave --clocks out")
    if wishes.for_rows and (clocks or foreign or to is Format.HTML):
        what = "--clocks" if clocks else f"--to {to}"
        raise UsageError(
            f"{what} has rows of its own: leave --columns, --sort, --group-by and --baseline out"
        )


def _check_scaling(wishes: TableRequest, to: Format, plots: Path | None, clocks: bool) -> None:
    """Refuse what does not go with --scaling.

    Raises:
        UsageError: with what to leave out.
    """
    if to not in (Format.TERMINAL, Format.JSON, Format.MARKDOWN):
        raise UsageError("--scaling is for the terminal, --to json and --to markdown")
    if wishes.for_rows or wishes.per_run or wishes.price is not None or clocks or plots is not None:
        raise UsageError("--scaling has a table of its own: only --filter goes with it")


def _scaling(benchmarks: Sequence[Benchmark], to: Format, output: Path | None) -> None:
    """Print what more processes brought.

    Raises:
        UsageError: nothing was measured with several process counts.
    """
    from bench.analysis.scaling_studies import NOTHING, scaling_studies
    from bench.report.formats import scaling

    found = scaling_studies(benchmarks)
    if not found:
        raise UsageError(f"{NOTHING}: mnist-bench sweep --scaling strong makes such runs")
    if to is Format.TERMINAL:
        from bench.report import terminal

        terminal.show(terminal.scaling(found))
    else:
        write = scaling.to_json if to is Format.JSON else scaling.to_markdown
        write_document(write(found), output)


def _show(
    benchmarks: Sequence[Benchmark], table: RowTable | None, wishes: TableRequest, clocks: bool
) -> None:
    # Rich takes a tenth of a second to load, and only the terminal needs it.
    from bench.report import terminal

    if clocks:
        terminal.show(terminal.clocks(benchmarks))
    elif wishes.for_rows and table is not None:
        terminal.show(terminal.rows(readable_columns(table, wishes), benchmarks))
    else:
        show = terminal.runs if wishes.per_run else terminal.summary
        terminal.show(show(benchmarks, wishes.price))


def _write_rows(table: RowTable, wishes: TableRequest, to: Format, output: Path | None) -> None:
    if to is Format.PARQUET:
        assert output is not None
        write_file(to_parquet(table.rows, table.columns), output)
    elif to is Format.MARKDOWN:
        shown = readable_columns(table, wishes)
        write_document(to_markdown(shown), output)
        if fewer := len(table.columns) - len(shown.columns):
            left_out = f"{count_of(fewer, 'column')}; name those that you want with --columns"
            print(f"mnist-bench: not in markdown: {left_out}", file=sys.stderr)
    else:
        write = to_json if to is Format.JSON else to_csv
        write_document(write(table.rows, table.columns), output)


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
    benchmarks: Sequence[Benchmark], problems: Sequence[UnreadableFile], plots: Path | None
) -> Callable[[], str]:
    """Draw the figures, into files where these are wanted; gives what makes the page of them."""
    # Matplotlib takes most of a second to load, and only a page needs it.
    from bench.cli.output import write_plots
    from bench.report.html.figures import draw_figures
    from bench.report.html.page import to_html
    from bench.report.html.series import setup_series

    found = setup_series(benchmarks)
    outcomes = draw_figures(found)
    if plots is not None:
        write_plots(outcomes, plots)
    return partial(to_html, found, outcomes, problems)


def _read(paths: list[Path]) -> tuple[list[Benchmark], list[UnreadableFile]]:
    """The benchmarks on disk, alike ones of a run each as one, and what could not be read.

    The latter is said on stderr too.

    Raises:
        UsageError: there is nothing to report.
    """
    # Where nothing has been run yet there is no such folder; that is not a mistyped path.
    found = store.read_records(path for path in paths if path != RESULTS_DIR or path.exists())
    for problem in found.problems:
        print(f"{printable(str(problem.path))}: {problem.reason}", file=sys.stderr)
    if not found.records:
        where = ", ".join(printable(str(path)) for path in paths)
        raise UsageError(f"no run records in {where}: make some with `mnist-bench run`")
    return benchmarks.pool_single_runs(benchmarks.group_runs(found.records)), found.problems
