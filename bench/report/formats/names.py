"""The formats of `report --to`, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum

from bench.analysis.benchmarks import Benchmark
from bench.analysis.columns import Row
from bench.report.formats.bencher import to_bmf
from bench.report.formats.csv import to_csv
from bench.report.formats.github_action import to_github_action_bigger, to_github_action_smaller
from bench.report.formats.json import to_json
from bench.report.formats.pytest_benchmark import to_pytest_benchmark
from bench.report.formats.tracked import Document


class Format(StrEnum):
    """The name of a format."""

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


ROW_TEXTS: dict[Format, Callable[[Sequence[Row], Sequence[str]], str]] = {
    Format.JSON: to_json,
    Format.CSV: to_csv,
}
"""Formats that are the text of rows and columns."""
ROW_FORMATS = (*ROW_TEXTS, Format.MARKDOWN, Format.PARQUET)
"""Formats of which the user chooses the rows and columns."""
DOCUMENTS: dict[Format, Callable[[Sequence[Benchmark]], Document]] = {
    Format.PYTEST_BENCHMARK: to_pytest_benchmark,
    Format.BMF: to_bmf,
    Format.GITHUB_ACTION_SMALLER: to_github_action_smaller,
    Format.GITHUB_ACTION_BIGGER: to_github_action_bigger,
}
"""Formats of other tools that are one document each."""
TOOL_FORMATS = (Format.MLLOG, *DOCUMENTS)
"""Formats of other tools, which decide what a row is."""
