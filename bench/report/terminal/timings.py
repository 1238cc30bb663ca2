"""Times to target by several timing rules, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from bench import text
from bench.analysis.benchmarks import Benchmark
from bench.analysis.metrics import completed
from bench.analysis.timing_rules import Span, TimedResult, timed_results
from bench.report.terminal.results import benchmark_title, heading_to_target
from bench.report.terminal.tables import FittedTable, Section, TableColumn


def clocks(benchmarks: Sequence[Benchmark]) -> RenderableType:
    """One row per timing rule, under a title for each benchmark: the time, and what it excludes."""
    results: list[TimedResult] = []
    sections: list[Section] = []
    for benchmark in benchmarks:
        start = len(results)
        results += timed_results(completed(benchmark.records))
        missing = Text("no run reached the target", style="dim")
        remarks = [missing] if len(results) == start else []
        sections.append(Section(start, len(results), benchmark_title(benchmark), remarks))
    columns = [
        TableColumn("clock", [Text(result.clock.value) for result in results], justify="left"),
        TableColumn(
            heading_to_target(benchmarks),
            [Text(text.seconds(result.seconds)) for result in results],
        ),
        *(
            TableColumn(f"without {span.value}", [_excluded(result, span) for result in results])
            for span in Span
            if any(span in result.excluded for result in results)
        ),
    ]
    return FittedTable(
        columns,
        sections,
        "Medians of the runs that reached the target; what each clock leaves out.",
    )


def _excluded(result: TimedResult, span: Span) -> Text:
    seconds = result.excluded.get(span)
    return Text("" if seconds is None else text.seconds(seconds), style="dim")
