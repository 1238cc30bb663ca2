"""What stands below tables of results: their warnings, and the folders of the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from bench.analysis import labels
from bench.analysis.benchmarks import Benchmark
from bench.analysis.columns import shown_path
from bench.analysis.result_warnings import ResultWarning
from bench.analysis.setup_key import recipe_name
from bench.text import count_of, printable


def notes(benchmarks: Sequence[Benchmark]) -> RenderableType:
    """Each warning once, with the benchmarks that it concerns, and where the records are."""
    table = Table.grid(padding=(0, 1, 0, 0))
    warnings_by_benchmark = [(benchmark, benchmark.warnings) for benchmark in benchmarks]
    for warning in ResultWarning:
        subjects = "; ".join(
            _subject(benchmark, warnings[warning], named=len(benchmarks) > 1)
            for benchmark, warnings in warnings_by_benchmark
            if warning in warnings
        )
        if any(warning in warnings for _, warnings in warnings_by_benchmark):
            line = Text(f"{subjects}: " if subjects else "").append(warning.value)
            if warning is ResultWarning.FELL_BACK:
                line.append(" ").append("; ".join(_fallbacks(benchmarks)))
            table.add_row(Text("!", style="bold yellow"), line)
    paths = [shown_path(path) for benchmark in benchmarks for path, _ in benchmark.runs]
    folders = Counter(str(PurePosixPath(path).parent) for path in paths if path is not None)
    places = [f"{count_of(n, 'record')} in {printable(folder)}" for folder, n in folders.items()]
    if None in paths:
        places.append(f"no record of {count_of(paths.count(None), 'run')}")
    for place in places:
        table.add_row(Text(">", style="dim"), Text(place, style="dim", overflow="fold"))
    return table


def _fallbacks(benchmarks: Sequence[Benchmark]) -> list[str]:
    """What failed and why, each once."""
    failed = [
        f"{fallback.computed_by}: {printable(fallback.reason)}"
        for benchmark in benchmarks
        for _, record in benchmark.runs
        for fallback in record.setup.fallbacks
    ]
    return list(dict.fromkeys(failed))


def _subject(benchmark: Benchmark, number: int | None, named: bool) -> str:
    """The benchmark that a warning concerns, if there are several, and how many of its runs."""
    record = benchmark.runs[0][1]
    setup = record.setup
    parts = []
    if named:
        name = f"{recipe_name(record)} on {setup.device_name} ({labels.label_of_setup(setup)})"
        parts.append(printable(name))
    if number is not None:
        parts.append(f"{number} of {count_of(len(benchmark.runs), 'run')}")
    return ", ".join(parts)
