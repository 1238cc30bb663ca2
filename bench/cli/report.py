"""`mnist-bench report`: show results again, as a table or in a format for another tool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bench.analysis.benchmarks import Benchmark
from bench.analysis.cost import parse_price
from bench.analysis.device_numbers import machine_numbers
from bench.analysis.selection import TableRequest, readable_columns, select_rows
from bench.analysis.standings import standings
from bench.analysis.table import RowTable
from bench.cli.input import own_benchmarks, read_benchmarks
from bench.cli.output import notify, output_path, write_document, write_file, write_folder
from bench.records.store import UnreadableFile, gc_paused
from bench.report.formats.markdown import to_markdown
from bench.report.formats.mllog import to_mllog
from bench.report.formats.names import DOCUMENTS, ROW_FORMATS, ROW_TEXTS, TOOL_FORMATS, Format
from bench.report.formats.parquet import to_parquet
from bench.text import count_of
from mnist_cnn.console import parse_path
from mnist_cnn.errors import UsageError
from mnist_cnn.help import one_of


class Per(StrEnum):
    """What a row stands for."""

    RUN = "run"
    BENCHMARK = "benchmark"


EXAMPLES = (
    ("The newest benchmark of this machine.", "mnist-bench report"),
    (
        "All published results as one page with figures.",
        "mnist-bench report results/ --to html --output report.html",
    ),
)


def report(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Records, folders of records or zip files (default: the newest benchmark of this "
            "machine in results/local).",
            show_default=False,
            parser=parse_path,
        ),
    ] = None,
    per: Annotated[
        Per | None,
        typer.Option(
            help="What a row stands for; without it the terminal shows one row a machine and "
            "division, where there are several machines.",
            show_default=False,
        ),
    ] = None,
    to: Annotated[
        Format, typer.Option(metavar="FORMAT", help=f"Output format: {one_of(Format)}.")
    ] = Format.TERMINAL,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Write to this file instead of stdout; with --to mllog, to this folder.",
            parser=parse_path,
        ),
    ] = None,
    plots: Annotated[
        Path | None,
        typer.Option(
            help="Also write the figures of --to html to this folder, as SVG and PNG.",
            parser=parse_path,
        ),
    ] = None,
    clocks: Annotated[
        bool,
        typer.Option("--clocks", help="Show the time to target by four timing conventions."),
    ] = False,
    scaling: Annotated[
        bool,
        typer.Option("--scaling", help="Show speed-up and efficiency by number of processes."),
    ] = False,
    price_per_hour: Annotated[
        str | None,
        typer.Option(
            help="Show the cost of reaching the target at this price of the machine, such as 2.49 "
            "or '2.49 EUR'."
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            "--filter", help="Show only rows for which this holds, such as 'threads > 1'."
        ),
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Columns to show, such as recipe,seed; --to json names all.")
    ] = None,
    sort: Annotated[
        str | None, typer.Option(help="Sort by this column, ascending; -COLUMN for descending.")
    ] = None,
    group_by: Annotated[
        str | None, typer.Option(help="Put rows with the same value of this column together.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Label: show the speed of every row relative to its runs.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Same as --to json.")] = False,
) -> None:
    """Show results from disk, or write them for another tool."""
    request = _Request(
        to=_output_format(to, as_json),
        table=TableRequest(
            per_run=per is Per.RUN,
            price=None if price_per_hour is None else parse_price(price_per_hour),
            baseline=baseline,
            where=where,
            columns=columns,
            sort=sort,
            group_by=group_by,
        ),
        output=output_path(output),
        plots=plots,
        clocks=clocks,
        scaling=scaling,
        all_benchmarks=per is not None,
    )
    if scaling:
        request.check_scaling()
    request.check()
    with gc_paused():
        benchmarks, problems = (
            read_benchmarks(paths) if paths else own_benchmarks(newest=not scaling)
        )
        everything = benchmarks
        table: RowTable | None = None
        if request.needs_rows:
            selection = select_rows(benchmarks, request.table)
            benchmarks, table = list(selection.benchmarks), selection.table
        if scaling:
            _show_scaling(benchmarks, request)
            return
        if request.to is Format.HTML or plots is not None:
            _draw(benchmarks, problems, request)
        if request.to is Format.TERMINAL:
            _show_tables(benchmarks, table, request, everything)
        elif request.to in TOOL_FORMATS:
            _write_for_tool(benchmarks, request)
        elif request.to in ROW_FORMATS and table is not None:
            _write_rows(table, request)


def _output_format(to: Format, as_json: bool) -> Format:
    if as_json and to not in (Format.TERMINAL, Format.JSON):
        raise UsageError(f"--json means --to json: leave --json or --to {to} out")
    return Format.JSON if as_json else to


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """The options of the command."""

    to: Format
    """Output format."""
    table: TableRequest
    """What the rows are, and which of them."""
    output: Path | None
    """File or folder to write to; None for stdout."""
    plots: Path | None
    """Folder for the figures; None for no figures."""
    clocks: bool
    """Whether to show the timing conventions."""
    scaling: bool
    """Whether to show the scaling studies."""
    all_benchmarks: bool
    """Whether every benchmark is shown, also where a row a machine would do."""

    @property
    def needs_rows(self) -> bool:
        """Whether rows must be selected: for their format, or for an option about rows."""
        if self.scaling:
            return self.table.where is not None
        return self.to in ROW_FORMATS or self.table.for_rows or self.table.where is not None

    def check(self) -> None:
        """Refuse options that cannot be combined.

        Raises:
            UsageError: the message says which option to leave out.
        """
        to, table = self.to, self.table
        if to is Format.TERMINAL and self.output is not None:
            raise UsageError("--output is for other formats: name one with --to")
        if to is Format.PARQUET and self.output is None:
            raise UsageError("--to parquet is not text: name a file for it with --output")
        if self.clocks and to is not Format.TERMINAL:
            raise UsageError("--clocks is for the terminal: leave --to out")
        if to is Format.HTML and table.per_run:
            raise UsageError("--to html shows benchmarks and runs: leave --per out")
        if to in TOOL_FORMATS and table.per_run:
            raise UsageError(f"--to {to} decides what a row stands for: leave --per out")
        if table.price is not None and (to in TOOL_FORMATS or to is Format.HTML):
            raise UsageError(f"--to {to} has no place for a price: leave --price-per-hour out")
        if table.price is not None and self.clocks:
            raise UsageError("--price-per-hour is for the results: leave --clocks out")
        if table.for_rows and (self.clocks or to in TOOL_FORMATS or to is Format.HTML):
            option = "--clocks" if self.clocks else f"--to {to}"
            raise UsageError(
                f"{option} has its own rows: leave --columns, --sort, --group-by and --baseline out"
            )

    def check_scaling(self) -> None:
        """Refuse options that cannot be combined with --scaling.

        Raises:
            UsageError: the message says which options are possible.
        """
        if self.to not in (Format.TERMINAL, Format.JSON, Format.MARKDOWN):
            raise UsageError("--scaling is for the terminal, --to json and --to markdown")
        is_row_option = self.table.for_rows or self.table.per_run or self.table.price is not None
        if is_row_option or self.clocks or self.plots is not None:
            raise UsageError("--scaling has its own table: only --filter can be combined with it")


def _show_scaling(benchmarks: Sequence[Benchmark], request: _Request) -> None:
    """Show the scaling studies.

    Raises:
        UsageError: no runs differ only in the number of processes.
    """
    from bench.analysis.scaling_studies import NOTHING, scaling_studies
    from bench.report.formats import scaling

    studies = scaling_studies(benchmarks)
    if not studies:
        raise UsageError(
            f"{NOTHING}: make such runs with `mnist-bench sweep --scaling strong --processes 1,2 "
            "--threads 1`"
        )
    if request.to is Format.TERMINAL:
        from bench.report import terminal

        terminal.show(terminal.scaling(studies))
    else:
        write = scaling.to_json if request.to is Format.JSON else scaling.to_markdown
        write_document(write(studies), request.output)


def _show_tables(
    benchmarks: Sequence[Benchmark],
    table: RowTable | None,
    request: _Request,
    everything: Sequence[Benchmark],
) -> None:
    """Print the tables.

    Args:
        benchmarks: the selected ones.
        table: rows of them, where options ask for rows.
        request: what was asked for.
        everything: all that were read; a machine's numbers may be among those not selected.
    """
    # Lazy: rich takes a tenth of a second to import, and only the terminal needs it.
    from bench.report import terminal

    if request.clocks:
        terminal.show(terminal.clocks(benchmarks))
    elif request.table.for_rows and table is not None:
        terminal.show(terminal.rows(readable_columns(table, request.table), benchmarks))
    elif request.table.per_run:
        terminal.show(terminal.runs(benchmarks, request.table.price))
    else:
        machines = machine_numbers([("", one) for one in everything], benchmarks)
        if len(machines) > 1 and not request.all_benchmarks and request.table.price is None:
            terminal.show(terminal.standings_table(standings(("", one) for one in benchmarks)))
            count = count_of(len(benchmarks), "benchmark")
            notify(f"all of the {count} behind these rows: --per benchmark")
            return
        # One machine is compared with none, so its rows cannot be mistaken for a device's.
        shown = machines if len(machines) > 1 else ()
        terminal.show(terminal.summary(benchmarks, request.table.price, shown))


def _write_rows(table: RowTable, request: _Request) -> None:
    if request.to is Format.PARQUET and request.output is not None:
        write_file(to_parquet(table.rows, table.columns), request.output)
    elif request.to is Format.MARKDOWN:
        shown = readable_columns(table, request.table)
        write_document(to_markdown(shown), request.output)
        if omitted := len(table.columns) - len(shown.columns):
            notify(
                f"mnist-bench: not in markdown: {count_of(omitted, 'column')}; choose columns with "
                "--columns"
            )
    else:
        text = ROW_TEXTS[request.to](table.rows, table.columns)
        write_document(text, request.output)


def _write_for_tool(benchmarks: Sequence[Benchmark], request: _Request) -> None:
    """Write another tool's format, and say on stderr what it cannot hold."""
    if request.to is Format.MLLOG:
        logs = to_mllog(benchmarks)
        write_folder(logs.files, request.output)
        omissions = logs.left_out
    else:
        document = DOCUMENTS[request.to](benchmarks)
        write_document(document.text, request.output)
        omissions = document.left_out
    for line in omissions:
        notify(f"mnist-bench: not in {request.to}: {line}")


def _draw(
    benchmarks: Sequence[Benchmark], problems: Sequence[UnreadableFile], request: _Request
) -> None:
    """Draw the figures, and write them, the page, or both."""
    # Lazy: matplotlib takes most of a second to import, and only figures need it.
    from bench.cli.output import write_plots
    from bench.report.html.figures import draw_figures
    from bench.report.html.page import to_html
    from bench.report.html.series import setup_series

    series = setup_series(benchmarks)
    figures = draw_figures(series)
    if request.plots is not None:
        write_plots(figures, request.plots)
    if request.to is Format.HTML:
        write_document(to_html(series, figures, problems), request.output)
