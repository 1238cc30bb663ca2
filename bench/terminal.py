"""Tables and live progress for a terminal; the only file that imports rich.

Text from records and from the user may hold anything. It gets onto the screen as `Text`, never as
markup, and only after `notation.inert`.
"""

from __future__ import annotations

import io
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, TextIO

import rich.box
import rich.progress
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bench import notation
from bench.clocks import Item, Reading, readings
from bench.comparison import Benchmark, Cell, Row, Unit, benchmark_row, column, run_row, shown_path
from bench.contrast import Contrast, Line, Metric, Verdict
from bench.notation import ABSENT, inert
from bench.progress import outcome
from bench.records import RunRecord, Status
from bench.sides import Matched
from bench.stats import ResultWarning, completed
from mnist_cnn.progress import Progress

_PIPE_WIDTH = 140
"""Columns where the output goes to a file or a pipe: rich would take 80 and leave things out."""
_GAP = 2
"""Blanks between two columns of a table."""
_ASCII = str.maketrans({ABSENT: "-"})
_RULE = rich.box.SIMPLE_HEAD
_ASCII_RULE = rich.box.Box(str(_RULE).replace("─", "-"), ascii=True)
_REFRESH_SECONDS = 0.25
"""Shortest time between two redraws within a run. A redraw takes about a millisecond, which is in
no lap but on the clock of the time to target: where epochs are short, it must not add up."""

_ONE: dict[Unit, Callable[[float], str]] = {
    Unit.COUNT: "{:,}".format,
    Unit.FRACTION: notation.percent,
    Unit.SECONDS: notation.seconds,
    Unit.RATE: notation.quantity,
    Unit.BYTES: notation.memory,
}
_BETWEEN: dict[Unit, Callable[[float, float, float], str]] = {
    Unit.FRACTION: lambda low, high, _: notation.percent_between(low, high),
    Unit.SECONDS: notation.seconds_between,
    Unit.RATE: lambda low, high, _: notation.rate_between(low, high),
}
"""Lower end, upper end, and the value they stand below."""


def show(renderable: RenderableType) -> None:
    """Print to stdout."""
    console_for(sys.stdout).print(renderable)


def console_for(stream: TextIO) -> Console:
    """A console that takes text as it is and stumbles over no letter the stream can't encode."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = _PIPE_WIDTH
    return console


def summary(benchmarks: Sequence[Benchmark]) -> RenderableType:
    """Every run, the benchmarks they make, what is doubtful about those, and where it all is.

    In this order because the end is what is left standing on a terminal.
    """
    return Group(
        _run_tables(benchmarks), Text(), _benchmark_table(benchmarks), Text(), _notes(benchmarks)
    )


def runs(benchmarks: Sequence[Benchmark]) -> RenderableType:
    """Every run, what is doubtful about them, and where they are."""
    return Group(_run_tables(benchmarks), Text(), _notes(benchmarks))


def clocks(benchmarks: Sequence[Benchmark]) -> RenderableType:
    """A line a clock, under a title for each benchmark: what it shows, and what it leaves out."""
    rows: list[Reading] = []
    sections: list[_Section] = []
    for benchmark in benchmarks:
        found = readings(completed(benchmark.records))
        remarks = [] if found else [Text("no run reached the target", style="dim")]
        sections.append(_Section(len(rows), len(rows) + len(found), _title(benchmark), remarks))
        rows += found
    fields = [
        _Field("clock", [Text(row.clock.value) for row in rows], justify="left"),
        _Field(_to_target(benchmarks), [Text(notation.seconds(row.seconds)) for row in rows]),
        *(
            _Field(f"without {item.value}", [_excluded(row, item) for row in rows])
            for item in Item
            if any(item in row.excluded for row in rows)
        ),
    ]
    return _FittedTable(
        fields, sections, "Medians of the runs that reached the target; what a clock leaves out."
    )


def _excluded(row: Reading, item: Item) -> Text:
    seconds = row.excluded.get(item)
    return Text("" if seconds is None else notation.seconds(seconds), style="dim")


def comparison(
    base: str, new: str, matched: Matched, contrasts: Sequence[Contrast]
) -> RenderableType:
    """A table a case, what is to be known of it, and the cases that only one side has."""
    parts: list[RenderableType] = [Text(inert(f"{new} against {base}"), style="bold")]
    for contrast in contrasts:
        parts += [Text(), _contrast_table(contrast)]
        parts += [Text(inert(f"! {remark}"), style="yellow") for remark in contrast.case.remarks]
    parts += [
        Text(inert(f"! {name}: only {which} has it"), style="yellow")
        for which, names in (("the base", matched.missing), ("the new side", matched.added))
        for name in names
    ]
    return Group(*parts, Text())


# --- Tables that fit


@dataclass(frozen=True, slots=True)
class _Field:
    """A column of a table for people."""

    heading: str
    cells: Sequence[Text]
    priority: int = 0
    """The highest goes first where the page is too narrow; 0 never goes."""
    justify: Literal["left", "right", "center"] = "right"
    narrowest: int | None = None
    """Blanks it can be narrowed down to by wrapping its text; None: it is never wrapped."""

    @property
    def natural(self) -> int:
        """Blanks it takes unwrapped."""
        lines = (line for cell in self.cells for line in cell.plain.split("\n"))
        return max(len(self.heading), *map(cell_len, lines), 0)

    @property
    def least(self) -> int:
        """Blanks it takes at the narrowest."""
        if self.narrowest is None:
            return self.natural
        return min(self.natural, max(self.narrowest, len(self.heading)))


@dataclass(frozen=True, slots=True)
class _Section:
    """Rows that belong together."""

    start: int
    stop: int
    title: Text | None = None
    remarks: Sequence[Text] = ()
    """Below the rows."""


@dataclass(frozen=True, slots=True)
class _FittedTable:
    """A table that leaves out its least important columns, and says so, rather than cut any."""

    fields: Sequence[_Field]
    sections: Sequence[_Section]
    caption: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it as wide as the page allows."""
        fields = _fitting(self.fields, options.max_width)
        widths = _widths(fields, options.max_width)
        for section in self.sections:
            if section.start:
                yield Text()
            if section.title is not None:
                yield section.title
            yield _table(fields, widths, section, options.ascii_only)
            yield from section.remarks
        if self.caption:
            yield Text(self.caption, style="dim")
        left_out = ", ".join(field.heading for field in self.fields if field not in fields)
        if left_out:
            yield Text(f"Left out: {left_out}; see report --to csv.", style="dim")


def _fitting(fields: Sequence[_Field], page: int) -> list[_Field]:
    """The fields that fit on the page, the least important left out first."""
    kept = list(fields)
    while sum(field.least + _GAP for field in kept) - _GAP > page:
        last = max(kept, key=lambda field: field.priority)
        if last.priority == 0:
            break
        kept.remove(last)
    return kept


def _widths(fields: Sequence[_Field], page: int) -> list[int] | None:
    """How wide each is: those that can be wrapped get what is left; None where it is too narrow."""
    spare = page + _GAP - sum(field.least + _GAP for field in fields)
    if spare < 0:
        return None
    widths = []
    for field in fields:
        more = min(spare, field.natural - field.least)
        widths.append(field.least + more)
        spare -= more
    return widths


def _table(
    fields: Sequence[_Field], widths: list[int] | None, section: _Section, ascii_only: bool
) -> Table:
    table = Table(
        box=_ASCII_RULE if ascii_only else _RULE,
        show_edge=False,
        pad_edge=False,
        padding=(0, _GAP - 1, 0, 0),
        header_style="bold",
    )
    for index, field in enumerate(fields):
        table.add_column(
            field.heading,
            justify=field.justify,
            overflow="fold",
            width=widths[index] if widths else None,
        )
    for row in range(section.start, section.stop):
        cells = [field.cells[row] for field in fields]
        table.add_row(*(_plain(cell) if ascii_only else cell for cell in cells))
    return table


def _plain(cell: Text) -> Text:
    copy = cell.copy()
    copy.plain = copy.plain.translate(_ASCII)
    return copy


# --- What the tables show


def _run_tables(benchmarks: Sequence[Benchmark]) -> RenderableType:
    """A line a run, under a title for each benchmark."""
    rows = [row for benchmark in benchmarks for row in benchmark.rows]
    records = [record for benchmark in benchmarks for record in benchmark.records]
    sections: list[_Section] = []
    for benchmark in benchmarks:
        start = sections[-1].stop if sections else 0
        remarks = [
            Text(inert(f"run {record.run_index}: {outcome(record)}"), style="dim")
            for record in benchmark.records
            if record.reason
        ]
        section = _Section(start, start + len(benchmark.runs), _title(benchmark), remarks)
        sections.append(section)
    return _FittedTable(_run_fields(benchmarks, records, rows), sections)


def _run_fields(
    benchmarks: Sequence[Benchmark], records: Sequence[RunRecord], rows: Sequence[Row]
) -> list[_Field]:
    target = _to_target(benchmarks)
    reached = [_text(record.target_reached_epoch, Unit.COUNT) for record in records]
    return [
        _Field("run", [_text(record.run_index, Unit.COUNT) for record in records]),
        _Field("seed", _texts("seed", rows)),
        _Field("outcome", [_outcome(record) for record in records], justify="left"),
        _Field("at epoch", reached, priority=1),
        _Field(target, _texts("time_to_target_seconds", rows)),
        _Field(_heading("train_seconds"), _texts("train_seconds", rows), priority=3),
        _Field(_heading("eval_seconds"), _texts("eval_seconds", rows), priority=5),
        _Field(_heading("images_per_second"), _texts("images_per_second", rows)),
        _Field(_heading("final_accuracy"), _texts("final_accuracy", rows)),
        _Field(_heading("best_accuracy"), _texts("best_accuracy", rows), priority=2),
        _Field(_heading("record_path"), _file_names(rows), priority=4, justify="left"),
    ]


def _benchmark_table(benchmarks: Sequence[Benchmark]) -> RenderableType:
    rows = [benchmark_row(benchmark) for benchmark in benchmarks]
    commits = [Text(inert(str(row["commit"] or ABSENT))[:7]) for row in rows]
    fields = [
        _Field("recipe", [_recipe(row) for row in rows], justify="left"),
        _Field("device", [_device(row) for row in rows], justify="left", narrowest=18),
        _Field("label", _texts("label", rows), priority=2, justify="left", narrowest=12),
        _Field("reached", [_reached(row) for row in rows], justify="center"),
        _Field(_to_target(benchmarks), _summaries("time_to_target_seconds", rows)),
        _Field("train only", _summaries("train_time_to_target_seconds", rows), priority=3),
        _Field("cold", _summaries("cold_time_to_target_seconds", rows), priority=4),
        _Field(_heading("images_per_second"), _summaries("images_per_second", rows)),
        _Field(_heading("final_accuracy"), _summaries("final_accuracy", rows)),
        _Field(_heading("peak_memory_bytes"), _summaries("peak_memory_bytes", rows), priority=5),
        _Field(_heading("torch_version"), _texts("torch_version", rows), priority=6),
        _Field("commit", commits, priority=7),
    ]
    targets = [benchmark.target_accuracy for benchmark in benchmarks]
    if len(set(targets)) > 1:
        fields.insert(4, _Field("target", [Text(notation.target(target)) for target in targets]))
    known = [f for f in fields if f.priority == 0 or any(c.plain != ABSENT for c in f.cells)]
    return _FittedTable(
        known,
        [_Section(0, len(rows))],
        "Medians of completed runs; below, the 95 % interval of the mean (from 3 runs).",
    )


_VERDICT_STYLES = {
    Verdict.BETTER: "green",
    Verdict.EQUIVALENT: "green",
    Verdict.ALIKE: "green",
    Verdict.WORSE: "red",
    Verdict.APART: "red",
}


def _contrast_table(contrast: Contrast) -> RenderableType:
    """A line a metric: both sides, what lies between them, and what may be said of it."""
    case, lines = contrast.case, contrast.lines
    counts = f"{len(case.base)} and {len(case.new)} runs"
    title = Text(inert(f"{case.name}: {counts}{', by turns' if contrast.paired else ''}"))
    fields = [
        _Field("", [Text(line.metric.value) for line in lines], justify="left"),
        _Field("base", [_side(line, line.base) for line in lines], priority=2),
        _Field("new", [_side(line, line.new) for line in lines], priority=1),
        _Field("difference", [_difference(line) for line in lines]),
        _Field("95 % interval", [_difference_between(line) for line in lines]),
        _Field("verdict", [_verdict(line) for line in lines], justify="left"),
    ]
    notes = [Text(inert(f"{line.metric}: {line.note}"), style="dim") for line in lines if line.note]
    notes += [
        Text(f"{line.metric}: about {line.runs_needed} runs a side could tell", style="dim")
        for line in lines
        if line.verdict is Verdict.UNCLEAR and line.runs_needed
    ]
    return _FittedTable(fields, [_Section(0, len(lines), title, notes)])


def _side(line: Line, value: float | None) -> Text:
    if value is None:
        return Text(ABSENT)
    match line.metric:
        case Metric.ACCURACY:
            return Text(notation.percent(value))
        case Metric.TIME_TO_TARGET:
            return Text(notation.seconds(value))
        case Metric.SECONDS_AN_IMAGE:
            return Text(f"{notation.quantity(1e6 * value)} us")
        case Metric.SAMPLES_TO_TARGET:
            return Text(f"{value:,.0f}")
        case Metric.CONVERGENCE:
            return Text(f"{value:.4f}")


def _difference(line: Line) -> Text:
    return Text(ABSENT if line.difference is None else _relative(line, line.difference.value))


def _difference_between(line: Line) -> Text:
    ends = line.difference
    if ends is None or (ends.low is None and ends.high is None):
        return Text(ABSENT)
    low, high = (
        "?" if end is None else _relative(line, end, unit=False) for end in (ends.low, ends.high)
    )
    return Text(f"{low} to {high}")


def _relative(line: Line, value: float, unit: bool = True) -> str:
    """A difference of accuracies in points, of everything else in per cent of the base."""
    if line.metric is Metric.ACCURACY:
        return f"{value:+.3f}{' pts' if unit else ''}"
    return f"{100 * (value - 1):+.1f}{' %' if unit else ''}"


def _verdict(line: Line) -> Text:
    return Text(line.verdict.value, style=_VERDICT_STYLES.get(line.verdict, "dim"))


def _heading(name: str) -> str:
    return column(name).heading


def _to_target(benchmarks: Sequence[Benchmark]) -> str:
    """The heading of times to target: the target itself, where all have the same."""
    targets = {benchmark.target_accuracy for benchmark in benchmarks}
    return f"to {notation.target(targets.pop())}" if len(targets) == 1 else "to target"


def _title(benchmark: Benchmark) -> Text:
    row = run_row(benchmark.runs[0])
    title = Text(f"{_name(row)}, {_setup(row)}", style="bold")
    return title.append(f"  {_label(row)}", style="dim") if row["label"] else title


def _name(row: Row) -> str:
    return inert(f"{row['recipe'] or 'unnamed recipe'} on {row['device_name']}")


def _setup(row: Row) -> str:
    processes, threads = (
        count if isinstance(count, int) else None for count in (row["processes"], row["threads"])
    )
    return inert(notation.set_up(processes, threads, str(row["precision"]), str(row["kernels"])))


def _label(row: Row) -> str:
    """What the user called these runs, in quotes."""
    return f"\u201c{inert(str(row['label']))}\u201d"


def _recipe(row: Row) -> Text:
    return _text(row["recipe"], Unit.TEXT).append(f"\n{row['division']}", style="dim")


def _device(row: Row) -> Text:
    return _text(row["device_name"], Unit.TEXT).append(f"\n{_setup(row)}", style="dim")


def _reached(row: Row) -> Text:
    reached, number = row["runs_reached"], row["runs"]
    style = "green" if reached == number else "yellow" if reached else "red"
    return Text(f"{reached}/{number}", style=style)


def _outcome(record: RunRecord) -> Text:
    if record.status is not Status.COMPLETED:
        return Text(record.status.value, style="red")
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
        return Text(ABSENT, style="dim")
    return Text(inert(value) if isinstance(value, str) else _ONE[unit](value))


def _summaries(name: str, rows: Sequence[Row]) -> list[Text]:
    return [_summary(name, row) for row in rows]


def _summary(name: str, row: Row) -> Text:
    """The median, and the interval of the mean below it."""
    unit = column(name).unit
    median, low, high = (row[f"{name}_{part}"] for part in ("median", "low", "high"))
    text = _text(median, unit)
    if (
        unit in _BETWEEN
        and isinstance(median, float)
        and isinstance(low, float)
        and isinstance(high, float)
    ):
        text.append(f"\n{_BETWEEN[unit](low, high, median)}", style="dim")
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
    places = [f"{notation.plural(n, 'record')} in {inert(at)}" for at, n in folders.items()]
    if None in paths:
        places.append(f"no record of {notation.plural(paths.count(None), 'run')}")
    for place in places:
        notes.add_row(Text(">", style="dim"), Text(place, style="dim", overflow="fold"))
    return notes


def _concern(benchmark: Benchmark, number: int | None, named: bool) -> str:
    """Which benchmark a warning is about, and how many of its runs."""
    row = run_row(benchmark.runs[0])
    parts = [f"{_name(row)} ({_setup(row)})"] if named else []
    if number is not None:
        parts.append(f"{number} of {notation.plural(len(benchmark.runs), 'run')}")
    return ", ".join(parts)


# --- Live


class LiveProgress:
    """A few lines that redraw themselves: which run, how far, how good, how fast, how long still.

    Redraws only inside the calls the runner makes between laps; there is no refreshing thread.

    Args:
        console: where to draw; stderr, when None.
        now: a clock in seconds, for the time left.
    """

    def __init__(
        self, console: Console | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console or console_for(sys.stderr)
        self._now = now
        # Redirecting would make every line that anybody prints redraw the display.
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._runs = self._epochs = self._run = self._epochs_done = 0
        self._began: float | None = None
        """When the first measured run did."""
        self._drawn = -math.inf
        self._recipe = self._where = self._training = self._accuracy = ""

    def benchmark_started(self, recipe_name: str, runs: int, epochs: int) -> None:
        """Start drawing."""
        self._recipe, self._runs, self._epochs = inert(recipe_name), runs, epochs
        self._live.start()

    def warmup_started(self) -> None:
        """Say so."""
        self._where = "warm-up, not counted"
        self._draw()

    def warmup_finished(self, seconds: float) -> None:
        """Leave a line of it."""
        self._leave(f"{self._recipe}: warm-up took {notation.seconds(seconds)}")

    def run_started(self, index: int, seed: int) -> None:
        """Show which run, with nothing known of it yet."""
        if self._began is None:
            self._began = self._now()
        self._run = index
        self._where = f"run {index} of {self._runs}  seed {seed}"
        self._training = self._accuracy = ""
        self._draw()

    def epoch_trained(self, epoch: int, epochs: int, loss: float, images_per_second: float) -> None:
        """Show how far and how fast."""
        self._epochs_done = (self._run - 1) * self._epochs + epoch
        rate = notation.quantity(images_per_second)
        self._training = f"epoch {epoch} of {epochs}  loss {loss:.4f}  {rate} images/s"
        self._draw_soon()

    def evaluated(self, epoch: int, accuracy: float, best: float, reached: bool) -> None:
        """Show how good."""
        parts = [f"epoch {epoch}: {notation.percent(accuracy)}", f"best {notation.percent(best)}"]
        self._accuracy = "  ".join([*parts, "target reached"] if reached else parts)
        self._draw_soon()

    def run_finished(self, record: RunRecord) -> None:
        """Leave a line of it."""
        self._epochs_done = self._run * self._epochs
        self._leave(f"run {self._run} of {self._runs}: {outcome(record)}")

    def close(self) -> None:
        """Take the display away and give the cursor back."""
        self._live.stop()

    def _draw_soon(self) -> None:
        """Draw, unless the last redraw was only a moment ago."""
        if self._now() - self._drawn >= _REFRESH_SECONDS:
            self._draw()

    def _draw(self) -> None:
        self._drawn = self._now()
        lines = [f"{self._recipe}  {self._where}", self._training, self._accuracy]
        bar = Table.grid(padding=(0, 2, 0, 0))
        total = self._runs * self._epochs
        bar.add_row(
            ProgressBar(total=total, completed=self._epochs_done, width=40), self._time_left()
        )
        texts = [Text(line, no_wrap=True, overflow="crop") for line in lines if line]
        self._live.update(Group(*texts, bar), refresh=True)

    def _time_left(self) -> str:
        left = self._runs * self._epochs - self._epochs_done
        if self._began is None or not self._epochs_done or not left:
            return ""
        pace = (self._now() - self._began) / self._epochs_done
        return f"{notation.clock(pace * left)} left"

    def _leave(self, text: str) -> None:
        """Print a line that stays, above the display."""
        self._console.print(Text(inert(text)))


@contextmanager
def transfer_progress() -> Iterator[Progress]:
    """A bar on stderr for each download; where that is no terminal, a line for each."""
    console = console_for(sys.stderr)
    if not console.is_terminal:
        yield _line_once(console)
        return
    columns = (
        rich.progress.TextColumn("{task.description}", markup=False),
        rich.progress.BarColumn(),
        rich.progress.DownloadColumn(),
        rich.progress.TransferSpeedColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    with rich.progress.Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, rich.progress.TaskID] = {}

        def update(what: str, done_bytes: int, total_bytes: int | None) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(inert(what), total=total_bytes)
            bars.update(tasks[what], completed=done_bytes, total=total_bytes)

        yield update


def _line_once(console: Console) -> Progress:
    said: set[str] = set()

    def update(what: str, _done_bytes: int, _total_bytes: int | None) -> None:
        if what not in said:
            said.add(what)
            console.print(Text(inert(what)))

    return update
