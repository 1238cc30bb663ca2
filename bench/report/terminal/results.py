"""Results as tables: every run, the benchmarks they make, and what is doubtful about those."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench import text
from bench.analysis import labels
from bench.analysis.benchmarks import Benchmark
from bench.analysis.columns import Row, column, shown_path
from bench.analysis.cost import Price, add_costs
from bench.analysis.headings import LESSER, heading_of, is_text, unit_of
from bench.analysis.metrics import completed
from bench.analysis.result_warnings import ResultWarning
from bench.analysis.rows import benchmark_row, run_row, run_rows
from bench.analysis.table import RowTable as Rows
from bench.analysis.timing_rules import Span, TimedResult, timed_results
from bench.analysis.units import Cell, Unit, format_cell, format_interval
from bench.records.schema import RunRecord
from bench.report.progress import run_outcome
from bench.report.terminal.sparkline import courses
from bench.report.terminal.tables import Field, FittedTable, Section
from bench.text import MISSING, count_of, printable

_NARROWEST = 12
"""Blanks that a text is left, of any column."""


def summary(benchmarks: Sequence[Benchmark], price: Price | None = None) -> RenderableType:
    """Every run, the benchmarks they make, what is doubtful about those, and where it all is.

    In this order because the end is what is left standing on a terminal.
    """
    return Group(
        _run_tables(benchmarks, price),
        Text(),
        _benchmark_table(benchmarks, price),
        Text(),
        _notes(benchmarks),
    )


def runs(benchmarks: Sequence[Benchmark], price: Price | None = None) -> RenderableType:
    """Every run, what is doubtful about them, and where they are."""
    return Group(_run_tables(benchmarks, price), Text(), _notes(benchmarks))


def clocks(benchmarks: Sequence[Benchmark]) -> RenderableType:
    """A line a clock, under a title for each benchmark: what it shows, and what it leaves out."""
    rows: list[TimedResult] = []
    sections: list[Section] = []
    for benchmark in benchmarks:
        found = timed_results(completed(benchmark.records))
        remarks = [] if found else [Text("no run reached the target", style="dim")]
        sections.append(Section(len(rows), len(rows) + len(found), _title(benchmark), remarks))
        rows += found
    fields = [
        Field("clock", [Text(row.clock.value) for row in rows], justify="left"),
        Field(_to_target(benchmarks), [Text(text.seconds(row.seconds)) for row in rows]),
        *(
            Field(f"without {item.value}", [_excluded(row, item) for row in rows])
            for item in Span
            if any(item in row.excluded for row in rows)
        ),
    ]
    return FittedTable(
        fields, sections, "Medians of the runs that reached the target; what a clock leaves out."
    )


def rows(table: Rows, benchmarks: Sequence[Benchmark]) -> RenderableType:
    """Rows of any columns, the first of which stay on a narrow page; below it, what is doubtful."""
    ordered: list[Row] = []
    sections: list[Section] = []
    for value, group in table.groups():
        title = None
        if table.group_by is not None:
            shown = _text(value, unit_of(table.group_by)).plain
            title = Text(f"{heading_of(table.group_by)}: {shown}", style="bold")
        sections.append(Section(len(ordered), len(ordered) + len(group), title))
        ordered += group
    fields = [
        Field(
            heading_of(name),
            [_text(row[name], unit_of(name)) for row in ordered],
            priority=number + len(table.columns) * (name in LESSER),
            justify="left" if is_text(name) else "right",
            narrowest=_NARROWEST if is_text(name) else None,
        )
        for number, name in enumerate(table.columns)
    ]
    return Group(FittedTable(fields, sections), Text(), _notes(benchmarks))


def _excluded(row: TimedResult, item: Span) -> Text:
    seconds = row.excluded.get(item)
    return Text("" if seconds is None else text.seconds(seconds), style="dim")


def _run_tables(benchmarks: Sequence[Benchmark], price: Price | None) -> RenderableType:
    """A line a run, under a title for each benchmark."""
    rows = run_rows(benchmarks)
    records = [record for benchmark in benchmarks for record in benchmark.records]
    sections: list[Section] = []
    for benchmark in benchmarks:
        start = sections[-1].stop if sections else 0
        remarks = [
            Text(printable(f"run {record.run_index}: {run_outcome(record)}"), style="dim")
            for record in benchmark.records
            if record.reason
        ]
        section = Section(start, start + len(benchmark.runs), _title(benchmark), remarks)
        sections.append(section)
    return FittedTable(_run_fields(benchmarks, records, rows, price), sections)


def _run_fields(
    benchmarks: Sequence[Benchmark],
    records: Sequence[RunRecord],
    rows: Sequence[Row],
    price: Price | None,
) -> list[Field]:
    target = _to_target(benchmarks)
    reached = [_text(record.target_reached_epoch, Unit.COUNT) for record in records]
    energy = Field(_heading("energy_joules"), _texts("energy_joules", rows), priority=3)
    return [
        Field("run", [_text(record.run_index, Unit.COUNT) for record in records]),
        Field("seed", _texts("seed", rows)),
        Field("outcome", [_outcome(record) for record in records], justify="left"),
        Field("at epoch", reached, priority=1),
        Field(target, _texts("time_to_target_seconds", rows)),
        Field(_heading("train_seconds"), _texts("train_seconds", rows), priority=3),
        Field(_heading("eval_seconds"), _texts("eval_seconds", rows), priority=6),
        Field(_heading("images_per_second"), _texts("images_per_second", rows)),
        *_known([energy]),
        *_cost_fields("cost_to_target", rows, price),
        Field(_heading("final_accuracy"), _texts("final_accuracy", rows)),
        Field(_heading("best_accuracy"), _texts("best_accuracy", rows), priority=2),
        *_course(records),
        Field(_heading("record_path"), _file_names(rows), priority=5, justify="left"),
    ]


def _course(records: Sequence[RunRecord]) -> list[Field]:
    """Accuracy over the evaluations, where there are several."""
    lines = courses(records)
    if not any(lines):
        return []
    return [Field("evaluations", [Text(line) for line in lines], priority=4, justify="left")]


def _benchmark_table(benchmarks: Sequence[Benchmark], price: Price | None) -> RenderableType:
    rows = [benchmark_row(benchmark) for benchmark in benchmarks]
    commits = [Text(printable(str(row["commit"] or MISSING))[:7]) for row in rows]
    fields = [
        Field("recipe", [_recipe(row) for row in rows], justify="left"),
        Field("device", [_device(row) for row in rows], justify="left", narrowest=18),
        Field("label", _texts("label", rows), priority=2, justify="left", narrowest=12),
        Field("reached", [_reached(row) for row in rows], justify="center"),
        Field(_to_target(benchmarks), _summaries("time_to_target_seconds", rows)),
        Field("train only", _summaries("train_time_to_target_seconds", rows), priority=3),
        Field("cold", _summaries("cold_time_to_target_seconds", rows), priority=4),
        *_cost_fields("cost_to_target_median", rows, price),
        Field(_heading("energy_joules"), _summaries("energy_joules", rows), priority=2),
        Field(_heading("images_per_second"), _summaries("images_per_second", rows)),
        Field(_heading("final_accuracy"), _summaries("final_accuracy", rows)),
        Field(_heading("peak_memory_bytes"), _summaries("peak_memory_bytes", rows), priority=5),
        Field(_heading("torch_version"), _texts("torch_version", rows), priority=6),
        Field("commit", commits, priority=7),
    ]
    targets = [benchmark.target_accuracy for benchmark in benchmarks]
    if len(set(targets)) > 1:
        fields.insert(4, Field("target", [Text(text.target(target)) for target in targets]))
    return FittedTable(
        _known(fields),
        [Section(0, len(rows))],
        "Medians of completed runs; below, the 95 % interval of the mean (from 3 runs).",
    )


def _known(fields: Sequence[Field]) -> list[Field]:
    """Without those of which nothing is known and that may go."""
    return [f for f in fields if f.priority == 0 or any(c.plain != MISSING for c in f.cells)]


def _cost_fields(name: str, rows: Sequence[Row], price: Price | None) -> list[Field]:
    """What reaching the target cost; none where no price was given."""
    if price is None:
        return []
    dearer, _ = add_costs(rows, list(rows[0]), price)
    heading = "cost" if price.currency is None else f"cost, {printable(price.currency)}"
    return [Field(heading, [_text(row[name], Unit.RATE) for row in dearer])]


def _heading(name: str) -> str:
    return column(name).heading


def _to_target(benchmarks: Sequence[Benchmark]) -> str:
    """The heading of times to target: the target itself, where all have the same."""
    targets = {benchmark.target_accuracy for benchmark in benchmarks}
    return f"to {text.target(targets.pop())}" if len(targets) == 1 else "to target"


def _title(benchmark: Benchmark) -> Text:
    row = run_row(benchmark.runs[0])
    title = Text(f"{_name(row)}, {_setup(row)}", style="bold")
    return title.append(f"  {_label(row)}", style="dim") if row["label"] else title


def _name(row: Row) -> str:
    return printable(f"{row['recipe'] or 'unnamed recipe'} on {row['device_name']}")


def _setup(row: Row) -> str:
    return labels.label_of_row(row)


def _label(row: Row) -> str:
    """What the user called these runs, in quotes."""
    return f"\u201c{printable(str(row['label']))}\u201d"


def _recipe(row: Row) -> Text:
    return _text(row["recipe"], Unit.TEXT).append(f"\n{row['division']}", style="dim")


def _device(row: Row) -> Text:
    return _text(row["device_name"], Unit.TEXT).append(f"\n{_setup(row)}", style="dim")


def _reached(row: Row) -> Text:
    reached, number = row["runs_reached"], row["runs"]
    style = "green" if reached == number else "yellow" if reached else "red"
    return Text(f"{reached}/{number}", style=style)


def _outcome(record: RunRecord) -> Text:
    if not record.counts:
        return Text(record.outcome, style="red")
    if record.target_reached_epoch is None:
        return Text("missed", style="yellow")
    return Text("reached", style="green")


def _file_names(rows: Sequence[Row]) -> list[Text]:
    """Without their folder, which is below the tables."""
    paths = [_path(row) for row in rows]
    return [_text(path.name if path else None, Unit.TEXT) for path in paths]


def _path(row: Row) -> PurePosixPath | None:
    path = row["record_path"]
    return PurePosixPath(path) if isinstance(path, str) else None


def _texts(name: str, rows: Sequence[Row]) -> list[Text]:
    return [_text(row[name], column(name).unit) for row in rows]


def _text(value: Cell, unit: Unit) -> Text:
    """A value for people."""
    if value is None:
        return Text(MISSING, style="dim")
    return Text(format_cell(value, unit))


def _summaries(name: str, rows: Sequence[Row]) -> list[Text]:
    return [_summary(name, row) for row in rows]


def _summary(name: str, row: Row) -> Text:
    """The median, and the interval of the mean below it."""
    unit = column(name).unit
    median, low, high = (row[f"{name}_{part}"] for part in ("median", "low", "high"))
    text = _text(median, unit)
    if (
        isinstance(median, float)
        and isinstance(low, float)
        and isinstance(high, float)
        and (between := format_interval(low, high, median, unit))
    ):
        text.append(f"\n{between}", style="dim")
    return text


# --- Below the tables


def _notes(benchmarks: Sequence[Benchmark]) -> RenderableType:
    """What is doubtful, each warning once with all it concerns, and where the records are."""
    notes = Table.grid(padding=(0, 1, 0, 0))
    found = [(benchmark, benchmark.warnings) for benchmark in benchmarks]
    for warning in ResultWarning:
        concerned = [(one, warnings[warning]) for one, warnings in found if warning in warnings]
        if concerned:
            whose = "; ".join(_concern(*one, named=len(benchmarks) > 1) for one in concerned)
            text = Text(f"{whose}: " if whose else "").append(warning.value)
            notes.add_row(Text("!", style="bold yellow"), text)
    paths = [shown_path(path) for benchmark in benchmarks for path, _ in benchmark.runs]
    folders = Counter(str(PurePosixPath(path).parent) for path in paths if path is not None)
    places = [f"{count_of(n, 'record')} in {printable(at)}" for at, n in folders.items()]
    if None in paths:
        places.append(f"no record of {count_of(paths.count(None), 'run')}")
    for place in places:
        notes.add_row(Text(">", style="dim"), Text(place, style="dim", overflow="fold"))
    return notes


def _concern(benchmark: Benchmark, number: int | None, named: bool) -> str:
    """Which benchmark a warning is about, and how many of its runs."""
    row = run_row(benchmark.runs[0])
    parts = [f"{_name(row)} ({_setup(row)})"] if named else []
    if number is not None:
        parts.append(f"{number} of {text.count_of(len(benchmark.runs), 'run')}")
    return ", ".join(parts)
