"""Results as tables: every run, and the benchmarks that they make."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from rich.console import Group, RenderableType
from rich.text import Text

from bench import text
from bench.analysis import labels
from bench.analysis.benchmarks import Benchmark
from bench.analysis.columns import Row, Run, column, shown_path
from bench.analysis.cost import Price, add_costs
from bench.analysis.device_numbers import MachineNumbers
from bench.analysis.metrics import reached_epoch
from bench.analysis.setup_key import recipe_name
from bench.analysis.step_code import code_of, legend, mark_of
from bench.analysis.units import Cell, Unit, format_cell, format_median_interval
from bench.records.schema import RunRecord
from bench.report.progress import run_outcome
from bench.report.terminal.machines import machine_table
from bench.report.terminal.notes import notes
from bench.report.terminal.sparkline import courses
from bench.report.terminal.tables import FittedTable, Section, TableColumn
from bench.text import MISSING, Rounding, printable


def summary(
    benchmarks: Sequence[Benchmark],
    price: Price | None = None,
    machines: Sequence[MachineNumbers] = (),
) -> RenderableType:
    """Every run, the benchmarks they make, their warnings, and the folders of the records.

    The most important is last, because the end is what a terminal still shows.

    Args:
        benchmarks: what was measured.
        price: price of the machine.
        machines: the two numbers of each machine; without any there is no table of them.
    """
    return Group(
        _run_tables(benchmarks, price),
        Text(),
        _benchmark_table(benchmarks, price),
        *([Text(), machine_table(machines)] if machines else []),
        Text(),
        notes(benchmarks),
    )


def runs(benchmarks: Sequence[Benchmark], price: Price | None = None) -> RenderableType:
    """Every run, the warnings about them, and the folders of the records."""
    return Group(_run_tables(benchmarks, price), Text(), notes(benchmarks))


def heading_to_target(benchmarks: Sequence[Benchmark]) -> str:
    """The heading of times to target: ``"to 99.4 %"`` when all have that target."""
    targets = {benchmark.target_accuracy for benchmark in benchmarks}
    return f"to {text.target(targets.pop())}" if len(targets) == 1 else "to target"


def benchmark_title(benchmark: Benchmark) -> Text:
    """Recipe, device, set-up and label of a benchmark."""
    record = benchmark.runs[0][1]
    setup = record.setup
    name = f"{recipe_name(record)} on {setup.device_name}, {labels.label_of_record(record)}"
    title = Text(printable(name), style="bold")
    if not record.label:
        return title
    return title.append(f"  \u201c{printable(record.label)}\u201d", style="dim")


def value_text(value: Cell, unit: Unit, rounding: Rounding = Rounding.NEAREST) -> Text:
    """A value for people."""
    if value is None:
        return Text(MISSING, style="dim")
    return Text(format_cell(value, unit, rounding))


def _run_tables(benchmarks: Sequence[Benchmark], price: Price | None) -> RenderableType:
    """One row per run, under a title for each benchmark."""
    sections: list[Section] = []
    for benchmark in benchmarks:
        start = sections[-1].stop if sections else 0
        remarks = [
            Text(printable(f"run {record.run_index}: {run_outcome(record)}"), style="dim")
            for record in benchmark.records
            if record.reason
        ]
        stop = start + len(benchmark.runs)
        sections.append(Section(start, stop, benchmark_title(benchmark), remarks))
    return FittedTable(_run_columns(benchmarks, price), sections)


def _run_columns(benchmarks: Sequence[Benchmark], price: Price | None) -> list[TableColumn]:
    runs = [run for benchmark in benchmarks for run in benchmark.runs]
    records = [record for _, record in runs]

    def measured(name: str, priority: int = 0) -> TableColumn:
        return TableColumn(column(name).heading, _values(name, runs), priority=priority)

    times = [column("time_to_target_seconds").cell(run) for run in runs]
    target_epochs = [value_text(reached_epoch(record), Unit.COUNT) for record in records]
    return [
        TableColumn("run", [value_text(record.run_index, Unit.COUNT) for record in records]),
        TableColumn("seed", _values("seed", runs)),
        TableColumn("outcome", [_outcome(record) for record in records], justify="left"),
        TableColumn("at epoch", target_epochs, priority=1),
        TableColumn(heading_to_target(benchmarks), _values("time_to_target_seconds", runs)),
        *_first_crossings(runs),
        measured("train_seconds", priority=3),
        measured("eval_seconds", priority=6),
        measured("images_per_second"),
        *_without_empty([measured("energy_joules", priority=3)]),
        *_cost_columns(times, price),
        measured("final_accuracy"),
        measured("best_accuracy", priority=2),
        *_evaluation_columns(records),
        TableColumn(
            column("record_path").heading,
            [_file_name(run) for run in runs],
            priority=5,
            justify="left",
        ),
    ]


def _first_crossings(runs: Sequence[Run]) -> list[TableColumn]:
    """Times of first crossings; no column where they are the times to target."""
    name = "first_crossing_seconds"
    if all(reached_epoch(record) == record.target_reached_epoch for _, record in runs):
        return []
    return [TableColumn(column(name).heading, _values(name, runs), priority=2)]


def _evaluation_columns(records: Sequence[RunRecord]) -> list[TableColumn]:
    """Accuracy over the evaluations; no column when every run has one evaluation at most."""
    lines = courses(records)
    if not any(lines):
        return []
    return [TableColumn("evaluations", [Text(line) for line in lines], priority=4, justify="left")]


def _benchmark_table(benchmarks: Sequence[Benchmark], price: Price | None) -> RenderableType:
    """One row per benchmark."""
    first_runs = [benchmark.runs[0] for benchmark in benchmarks]

    def summaries(name: str, heading: str = "", priority: int = 0) -> TableColumn:
        cells = [_summary(benchmark, name) for benchmark in benchmarks]
        return TableColumn(heading or column(name).heading, cells, priority=priority)

    times = [benchmark.summary("time_to_target_seconds").median for benchmark in benchmarks]
    columns = [
        TableColumn("recipe", [_recipe(run) for run in first_runs], justify="left"),
        TableColumn(
            "device",
            [_device(run, first_runs[0]) for run in first_runs],
            justify="left",
            narrowest=12,
            comfortable=18,
        ),
        TableColumn(
            "label",
            _values("label", first_runs),
            priority=0 if _differ_in_label_only(first_runs) else 2,
            justify="left",
            narrowest=12,
        ),
        TableColumn("reached", [_reached(benchmark) for benchmark in benchmarks], justify="center"),
        summaries("time_to_target_seconds", heading_to_target(benchmarks)),
        TableColumn("a success", [_success(benchmark) for benchmark in benchmarks]),
        summaries("train_time_to_target_seconds", "train only", priority=3),
        summaries("cold_time_to_target_seconds", "cold", priority=4),
        *_cost_columns(times, price),
        summaries("energy_joules", priority=2),
        summaries("images_per_second", priority=1),
        summaries("final_accuracy"),
        summaries("peak_memory_bytes", priority=5),
        TableColumn(
            column("torch_version").heading, _values("torch_version", first_runs), priority=6
        ),
        TableColumn("commit", [_commit(run) for run in first_runs], priority=7),
    ]
    targets = [benchmark.target_accuracy for benchmark in benchmarks]
    if len(set(targets)) > 1:
        columns.insert(4, TableColumn("target", [Text(text.target(target)) for target in targets]))
    caption = (
        "Medians of completed runs; below, their 95 % interval (from 6 runs). A success: the "
        "seconds of all runs, misses included, for each that reached the target."
    )
    if len({code_of(record) for _, record in first_runs}) > 1:
        caption += f" {legend()}"
    return FittedTable(_without_empty(columns), [Section(0, len(benchmarks))], caption)


def _differ_in_label_only(first_runs: Sequence[Run]) -> bool:
    """Whether two rows would look alike without their labels."""
    seen: dict[tuple[str, str], set[str | None]] = {}
    for _, record in first_runs:
        device = f"{record.setup.device_name}, {labels.label_of_record(record)}"
        seen.setdefault((recipe_name(record), device), set()).add(record.label)
    return any(len(found) > 1 for found in seen.values())


def _without_empty(columns: Sequence[TableColumn]) -> list[TableColumn]:
    """The columns that have a value, and those that a table must have."""
    return [c for c in columns if c.priority == 0 or any(t.plain != MISSING for t in c.cells)]


def _cost_columns(times: Sequence[Cell], price: Price | None) -> list[TableColumn]:
    """The cost of reaching the target; no column without a price.

    Args:
        times: seconds to the target.
        price: price of the machine.
    """
    if price is None:
        return []
    rows: list[Row] = [{"time_to_target_seconds": seconds} for seconds in times]
    priced_rows, _ = add_costs(rows, ["time_to_target_seconds"], price)
    heading = "cost" if price.currency is None else f"cost, {printable(price.currency)}"
    return [
        TableColumn(heading, [value_text(row["cost_to_target"], Unit.RATE) for row in priced_rows])
    ]


def _recipe(run: Run) -> Text:
    recipe = value_text(column("recipe").cell(run), Unit.TEXT)
    return recipe.append(f"\n{run[1].division}", style="dim")


def _device(run: Run, first: Run) -> Text:
    """The device and the set-up, marked where other code computed it than the table's first row."""
    setup = run[1].setup
    label = printable(labels.label_of_record(run[1])) + mark_of(run[1], first[1])
    return value_text(setup.device_name, Unit.TEXT).append(f"\n{label}", style="dim")


def _reached(benchmark: Benchmark) -> Text:
    reached, number = benchmark.reached, len(benchmark.runs)
    style = "green" if reached == number else "yellow" if reached else "red"
    return Text(f"{reached}/{number}", style=style)


def _outcome(record: RunRecord) -> Text:
    if not record.counts:
        return Text(record.outcome, style="red")
    if reached_epoch(record) is None:
        return Text("missed", style="yellow")
    return Text("reached", style="green")


def _commit(run: Run) -> Text:
    environment = run[1].environment
    commit = environment.commit and environment.commit[:7]
    return Text(printable(commit or environment.version or MISSING))


def _file_name(run: Run) -> Text:
    """The record's file, without its folder, which stands below the tables."""
    path = shown_path(run[0])
    return value_text(None if path is None else PurePosixPath(path).name, Unit.TEXT)


def _values(name: str, runs: Sequence[Run]) -> list[Text]:
    """A column's value for each run."""
    return [value_text(column(name).cell(run), column(name).unit) for run in runs]


def _success(benchmark: Benchmark) -> Text:
    """The seconds spent for each run that reached the target."""
    estimate = benchmark.seconds_per_success
    return value_text(None if estimate is None else estimate.value, Unit.SECONDS)


def _summary(benchmark: Benchmark, name: str) -> Text:
    """The median of a measured column, and its interval below it."""
    unit, summary = column(name).unit, benchmark.summary(name)
    cell = value_text(summary.median, unit)
    if interval := format_median_interval(summary, unit):
        cell.append(f"\n{interval}", style="dim")
    return cell
