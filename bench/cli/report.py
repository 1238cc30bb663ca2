"""`mnist-bench report`: read results again, as a table or for another tool."""

from __future__ import annotations

import io
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bench import comparison, store
from bench.comparison import Benchmark
from bench.cost import parse_price, priced
from bench.export.as_csv import to_csv
from bench.export.as_json import to_json
from bench.notation import inert
from bench.store import RESULTS_DIR
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


def report(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Records, or folders of them (default: results/).", show_default=False),
    ] = None,
    per: Annotated[Per, typer.Option(help="What a row stands for.")] = Per.BENCHMARK,
    to: Annotated[Format, typer.Option(help="How to print it.")] = Format.TERMINAL,
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
    price = None if price_per_hour is None else parse_price(price_per_hour)
    if clocks and price is not None:
        raise UsageError("--price-per-hour is for the results: leave --clocks out")
    benchmarks = _read(paths or [RESULTS_DIR])
    if clocks:
        if to is not Format.TERMINAL:
            raise UsageError("--clocks is for the terminal: leave --to out")
        from bench import terminal

        terminal.show(terminal.clocks(benchmarks))
        return
    if to is Format.TERMINAL:
        # Rich takes a tenth of a second to load, and only the terminal needs it.
        from bench import terminal

        show = terminal.runs if per is Per.RUN else terminal.summary
        terminal.show(show(benchmarks, price))
        return
    if per is Per.RUN:
        rows, columns = comparison.run_rows(benchmarks), comparison.run_column_names()
    else:
        rows, columns = comparison.benchmark_rows(benchmarks), comparison.benchmark_column_names()
    if price is not None:
        rows, columns = priced(rows, columns, price)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # for programs, whatever the screen can show
    sys.stdout.write(to_json(rows, columns) if to is Format.JSON else to_csv(rows, columns))


def _read(paths: list[Path]) -> list[Benchmark]:
    """The benchmarks on disk; says on stderr what could not be read.

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
    return comparison.benchmarks(found.records)
