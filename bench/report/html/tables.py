"""The page's tables of set-ups and runs: their headings, rows and cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from markupsafe import Markup, escape

from bench.analysis import labels
from bench.analysis.columns import Run, column, shown_path
from bench.analysis.device_numbers import CODE, DEVICE, NOT_MEASURED, MachineNumber, MachineNumbers
from bench.analysis.metrics import reached_epoch
from bench.analysis.standings import HEADINGS, Standing
from bench.analysis.step_code import mark_of
from bench.analysis.units import (
    Unit,
    format_cell,
    format_estimate_interval,
    format_median_interval,
)
from bench.records.schema import RunRecord
from bench.report.html.series import SetupSeries
from bench.report.progress import run_outcome
from bench.text import printable

_RUN_COLUMNS = (
    "time_to_target_seconds",
    "init_seconds",
    "train_seconds",
    "eval_seconds",
    "images_per_second",
    "final_accuracy",
    "best_accuracy",
    "peak_memory_bytes",
)
"""Measured columns in the table of runs."""


class TableCell(NamedTuple):
    """A cell of a table."""

    text: str
    order: int | float | None = None
    """Number by which the column is sorted; None: sorted by the text."""
    below: str = ""
    """A second line, in smaller letters."""
    mark: str = ""
    """Name of a class of the style sheet."""
    hint: str = ""
    """Text that browsers show on hover."""
    is_number: bool = False

    def element(self, tag: str) -> str:
        """The cell as an HTML element.

        Built by hand: a page may have a hundred thousand cells, and a template is slower.

        Args:
            tag: name of the element, with attributes: ``'th scope="row"'``.
        """
        names = f"n {self.mark}" if self.is_number else self.mark
        attributes = f' class="{names.rstrip()}"' if names else ""
        if self.order is not None:
            attributes += f' data-v="{self.order}"'
        if self.hint:
            attributes += f' title="{escape(self.hint)}"'
        below = f"<small>{escape(self.below)}</small>" if self.below else ""
        return f"<{tag}{attributes}>{escape(self.text)}{below}</{tag.partition(' ')[0]}>"


@dataclass(frozen=True, slots=True)
class TableHeading:
    """The heading of a column."""

    text: str
    is_number: bool = True
    """Whether the column holds numbers, which are aligned and sorted as such."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row of a table, about a set-up or one of its runs."""

    number: int
    """Number of the set-up on this page."""
    colour: int
    """Number of the set-up's colour."""
    is_first: bool
    """Whether this is the first row of its set-up."""
    fields: tuple[TableCell, ...]
    """Cells, from left to right."""

    @property
    def cells(self) -> Markup:
        """The cells as HTML, the first as the header of the row."""
        first, *others = self.fields
        cells = [first.element('th scope="row"'), *(field.element("td") for field in others)]
        return Markup("".join(cells))


def setup_headings(to_target: str) -> list[TableHeading]:
    """The headings of the table of set-ups.

    Args:
        to_target: name of the target, as in the heading of the times to it.
    """
    return [
        TableHeading("set-up", is_number=False),
        TableHeading(f"to {to_target}"),
        TableHeading("a success"),
        TableHeading("reached"),
        TableHeading(column("final_accuracy").heading),
        TableHeading(column("images_per_second").heading),
        TableHeading("training only"),
        TableHeading(column("peak_memory_bytes").heading),
    ]


def setup_row(series: SetupSeries, first: SetupSeries) -> TableRow:
    """A set-up's row.

    Args:
        series: the set-up.
        first: that of the table's first row; a set-up that other kernels computed is marked.
    """
    record = series.first_record
    reached = series.benchmark.reached
    share = reached / len(series.runs)
    mark = "good" if share == 1 else "middling" if reached else "bad"
    device = printable(record.setup.device_name)
    below = device, series.detail, record.division, labels.protocol_note(record)
    fields = (
        TableCell(
            f"{series.name}{mark_of(record, first.first_record)}",
            below=", ".join(filter(None, below)),
        ),
        summary_cell(series, "time_to_target_seconds"),
        success_cell(series),
        TableCell(reached_share(series), share, mark=mark, is_number=True),
        summary_cell(series, "final_accuracy"),
        summary_cell(series, "images_per_second"),
        summary_cell(series, "train_time_to_target_seconds"),
        summary_cell(series, "peak_memory_bytes"),
    )
    return TableRow(series.number, series.colour, True, fields)


def standing_headings() -> list[TableHeading]:
    """The headings of the table with one row a machine."""
    words = (HEADINGS[0], HEADINGS[-1])
    return [TableHeading(heading, is_number=heading not in words) for heading in HEADINGS]


def standing_row(standing: Standing) -> Markup:
    """A machine's row in a division: values, with their intervals below them."""
    doubt = "" if standing.is_official else "! not official, see below"
    name = TableCell(printable(standing.name), below=doubt)
    numbers = (TableCell(s.value, below=s.interval, is_number=True) for s in standing.values)
    last = TableCell(printable(standing.measured_with), below=standing.source)
    elements = (cell.element("td") for cell in (*numbers, last))
    return Markup("".join((name.element('th scope="row"'), *elements)))


def machine_headings() -> list[str]:
    """The headings of the table of machines."""
    return ["machine", DEVICE, CODE]


def machine_row(machine: MachineNumbers) -> Markup:
    """A machine's row: its two numbers, and how each was measured."""
    below = "by name" if machine.known_by_name else ""
    name = TableCell(printable(machine.name), below=below)
    numbers = (_number_cell(machine.device), _number_cell(machine.code))
    cells = (name.element('th scope="row"'), *(number.element("td") for number in numbers))
    return Markup("".join(cells))


def _number_cell(number: MachineNumber | None) -> TableCell:
    if number is None:
        return TableCell(NOT_MEASURED, is_number=True)
    return TableCell(number.text, below=f"{number.how}, {number.source}", is_number=True)


def reached_share(series: SetupSeries) -> str:
    """Runs that reached the target, of all runs: ``"9/10"``."""
    return f"{series.benchmark.reached}/{len(series.runs)}"


def summary_cell(series: SetupSeries, name: str) -> TableCell:
    """The median of a measured column, and its interval below it."""
    unit, summary = column(name).unit, series.benchmark.summary(name)
    return TableCell(
        format_cell(summary.median, unit),
        summary.median,
        below=format_median_interval(summary, unit) or "",
        is_number=True,
    )


def success_cell(series: SetupSeries) -> TableCell:
    """The seconds spent for each run that reached the target, and their interval below."""
    estimate = series.benchmark.seconds_per_success
    value = None if estimate is None else estimate.value
    return TableCell(
        format_cell(value, Unit.SECONDS),
        value,
        below=format_estimate_interval(estimate, Unit.SECONDS) or "",
        is_number=True,
    )


def run_headings(to_target: str) -> list[TableHeading]:
    """The headings of the table of runs.

    Args:
        to_target: name of the target, as in the heading of the times to it.
    """
    return [
        TableHeading("record", is_number=False),
        TableHeading("seed"),
        TableHeading("outcome", is_number=False),
        TableHeading("at epoch"),
        TableHeading(f"to {to_target}"),
        *(TableHeading(column(name).heading) for name in _RUN_COLUMNS[1:]),
        TableHeading("started (UTC)", is_number=False),
    ]


def run_rows(series: SetupSeries) -> Iterator[TableRow]:
    """A row for each run of a set-up."""
    for index, run in enumerate(series.runs):
        yield TableRow(series.number, series.colour, index == 0, tuple(_run_cells(run)))


def _run_cells(run: Run) -> Iterator[TableCell]:
    record = run[1]
    path = printable(shown_path(run[0]) or "")
    name = PurePosixPath(path).name or printable(record.run_id)
    yield TableCell(name, hint=f"{path or 'not saved'}, run {printable(record.run_id)}")
    yield _value_cell(run, "seed")
    yield _outcome_cell(record)
    epoch = reached_epoch(record)
    yield TableCell(format_cell(epoch, Unit.COUNT), epoch, is_number=True)
    for measured in _RUN_COLUMNS:
        yield _value_cell(run, measured)
    yield TableCell(f"{record.started_utc:%Y-%m-%d %H:%M:%S}")


def _value_cell(run: Run, name: str) -> TableCell:
    value = column(name).cell(run)
    order = None if isinstance(value, str) else value
    return TableCell(format_cell(value, column(name).unit), order, is_number=True)


def _outcome_cell(record: RunRecord) -> TableCell:
    if not record.counts:
        return TableCell(record.outcome, below=run_outcome(record), mark="bad")
    if reached_epoch(record) is None:
        crossed = record.target_reached_epoch
        below = "" if crossed is None else f"first crossing at epoch {crossed}"
        return TableCell("missed", below=below, mark="middling")
    return TableCell("reached", mark="good")
