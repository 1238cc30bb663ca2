"""Results as one page: a file that needs no network, for a browser, a phone, a printer.

Everything that a record says is text here: taken through `printable`, escaped by the template, and
held by a Content-Security-Policy that lets nothing run or load but what this file wrote itself.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from markupsafe import Markup, escape

from bench.analysis.columns import Cell, Row, Run, Unit, column, format_cell, format_interval
from bench.analysis.result_warnings import ResultWarning
from bench.analysis.scaling import CAPTION, HEADINGS, scaling_studies
from bench.records.schema import RunRecord
from bench.records.store import UnreadableFile
from bench.report.html import drawing
from bench.report.html.captions import target_name
from bench.report.html.environments import environment_table, ranges
from bench.report.html.figure_result import DrawnFigure, FigureResult, MissingFigure
from bench.report.html.misclassified import misclassified_digits
from bench.report.html.series import SetupSeries
from bench.report.progress import run_outcome
from bench.stats.summary import FEWEST_RUNS
from bench.text import count_of, printable

_PAGE = Path(__file__).parent / "templates"


class Field(NamedTuple):
    """A cell of a table."""

    text: str
    order: int | float | None = None
    """By which a number is sorted, where one is known."""
    below: str = ""
    """A second, lesser line."""
    mark: str = ""
    """A class of the style sheet's."""
    hint: str = ""
    """Shown by browsers on request."""
    is_number: bool = False

    def element(self, tag: str) -> str:
        """As HTML, by hand: there may be a hundred thousand, and a template takes its time."""
        names = f"n {self.mark}" if self.is_number else self.mark
        attributes = f' class="{names.rstrip()}"' if names else ""
        if self.order is not None:
            attributes += f' data-v="{self.order}"'
        if self.hint:
            attributes += f' title="{escape(self.hint)}"'
        below = f"<small>{escape(self.below)}</small>" if self.below else ""
        return f"<{tag}{attributes}>{escape(self.text)}{below}</{tag.partition(' ')[0]}>"


@dataclass(frozen=True, slots=True)
class Heading:
    """Of a table's column."""

    text: str
    is_number: bool = True


@dataclass(frozen=True, slots=True)
class Line:
    """A table's row: about a set-up, or one of its runs."""

    number: int
    """The set-up's."""
    colour: int
    is_first: bool
    """Of its set-up's."""
    fields: tuple[Field, ...]

    @property
    def cells(self) -> Markup:
        """The fields as HTML, the first as the row's header."""
        first, *others = self.fields
        cells = [first.element('th scope="row"'), *(field.element("td") for field in others)]
        return Markup("".join(cells))


@dataclass(frozen=True, slots=True)
class Highlight:
    """A number to begin with."""

    heading: str
    value: str
    about: str


def to_html(
    series: Sequence[SetupSeries],
    outcomes: Sequence[FigureResult],
    problems: Sequence[UnreadableFile],
) -> str:
    """The whole page.

    Args:
        series: at least one.
        outcomes: `figures.draw` of them.
        problems: files that were to be read and could not be.
    """
    # Here: it takes a while to load, and only a page needs it.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(_PAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = _style()
    script = (_PAGE / "report.js").read_text(encoding="utf-8")
    runs = [run for one in series for run in one.runs]
    digits = misclassified_digits(record for _, record in runs)
    targets = {one.pooled.target_accuracy for one in series}
    to_target = target_name(series)
    page = templates.get_template("report.html.jinja").render(
        policy=_policy(style, script),
        style=style,
        script=script,
        to_target=to_target,
        target=to_target if len(targets) == 1 else "its target",
        scope=_scope(series, runs),
        highlights=list(_highlights(series, to_target)),
        set_up_headings=_set_up_headings(to_target),
        set_ups=[_set_up(one) for one in series],
        doubts=list(_doubts(series)),
        drawings=[
            (one, drawing.to_svg(one.figure, one.name, one.title, one.description, alone=False))
            for one in outcomes
            if isinstance(one, DrawnFigure)
        ],
        omissions=[one for one in outcomes if isinstance(one, MissingFigure)],
        studies=scaling_studies([one.pooled for one in series]),
        study_headings=HEADINGS,
        study_caption=CAPTION,
        digits=digits if not isinstance(digits, str) else None,
        digits_runs="" if isinstance(digits, str) else count_of(digits.runs, "run"),
        no_digits=digits if isinstance(digits, str) else "",
        surroundings=environment_table(series),
        run_headings=_run_headings(to_target),
        runs=[line for one in series for line in _runs(one)],
        problems=[(printable(str(one.path)), printable(one.reason)) for one in problems],
    )
    # What could be no UTF-8 file: half of a pair of surrogates, in a record's text.
    return page.encode("utf-8", "replace").decode("utf-8")


def _style() -> str:
    """The style sheet, the figures' palette before it, for each background."""
    light, dark = drawing.variables(dark=False), drawing.variables(dark=True)
    sheet = (_PAGE / "report.css").read_text(encoding="utf-8")
    return (
        f":root {{ color-scheme: light dark; {light} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n{sheet}"
    )


def _policy(style: str, script: str) -> str:
    """Nothing but this style, this script and pictures within the file."""
    return (
        f"default-src 'none'; style-src '{_sum(style)}'; script-src '{_sum(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _sum(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


# --- Above the tables


def _scope(series: Sequence[SetupSeries], runs: Sequence[Run]) -> str:
    """What all of this is about, in a line."""
    records = [record for _, record in runs]
    devices = len({record.setup.device_name for record in records})
    days = sorted({record.started_utc.date() for record in records})
    when = f"{days[0]:%Y-%m-%d}"
    if len(days) > 1:
        when += f" to {days[-1]:%Y-%m-%d}"
    return (
        f"{count_of(len(records), 'run')} of {count_of(len(series), 'set-up')} on "
        f"{count_of(devices, 'device')}, {when}"
    )


def _highlights(series: Sequence[SetupSeries], to_target: str) -> Iterator[Highlight]:
    """The best of those who have runs enough to be believed."""
    sure = [one for one in series if len(one.completed) >= FEWEST_RUNS]
    if fastest := _best(sure, "time_to_target_seconds_median", -1):
        yield _highlight(f"Fastest to {to_target}", fastest, "time_to_target_seconds")
    closed = [one for one in sure if one.row["division"] == "closed"]
    best = _best(closed, "time_to_target_seconds_median", -1)
    if best and best is not fastest:
        yield _highlight("Fastest in the closed division", best, "time_to_target_seconds")
    if quickest := _best(sure, "images_per_second_median", 1):
        yield _highlight("Most images a second", quickest, "images_per_second")
    done = sum(len(one.completed) for one in series)
    reached = sum(one.pooled.reached for one in series)
    yield Highlight(
        f"Reached {to_target}",
        f"{reached:,} of {done:,}",
        "completed runs, over all set-ups",
    )


def _best(series: Sequence[SetupSeries], name: str, sign: int) -> SetupSeries | None:
    known = [(value, one) for one in series if (value := one.number_of(name)) is not None]
    return max(known, key=lambda pair: sign * pair[0])[1] if known else None


def _highlight(heading: str, one: SetupSeries, name: str) -> Highlight:
    field = _summary(name, one.row)
    interval = f", {field.below}" if field.below else ""
    return Highlight(
        heading, field.text, f"{one.number}: {one.full_name}; {_reached(one)} runs{interval}"
    )


def _doubts(series: Sequence[SetupSeries]) -> Iterator[tuple[str, str]]:
    """Each warning once, with how many runs of which set-ups it is about."""
    for warning in ResultWarning:
        about = [one for one in series if warning in one.warnings]
        if about:
            numbers = ranges([one.number for one in about])
            whose = f"et-up{'s' if len(about) > 1 else ''} {numbers}"
            runs = sum(one.warnings[warning] or 0 for one in about)
            yield (f"{count_of(runs, 'run')} of s{whose}" if runs else f"S{whose}"), warning.value


# --- A row a set-up


def _set_up_headings(to_target: str) -> list[Heading]:
    return [
        Heading("set-up", is_number=False),
        Heading("reached"),
        Heading(f"to {to_target}"),
        Heading(column("final_accuracy").heading),
        Heading(column("images_per_second").heading),
        Heading("training only"),
        Heading(column("peak_memory_bytes").heading),
        Heading("device", is_number=False),
    ]


def _set_up(one: SetupSeries) -> Line:
    row = one.row
    reached, runs = one.pooled.reached, len(one.runs)
    share = reached / runs
    mark = "good" if share == 1 else "middling" if reached else "bad"
    division = str(row["division"])
    fields = (
        Field(one.name, below=", ".join(filter(None, (one.detail, division)))),
        Field(_reached(one), share, mark=mark, is_number=True),
        _summary("time_to_target_seconds", row),
        _summary("final_accuracy", row),
        _summary("images_per_second", row),
        _summary("train_time_to_target_seconds", row),
        _summary("peak_memory_bytes", row),
        Field(printable(str(row["device_name"]))),
    )
    return Line(one.number, one.colour, True, fields)


def _reached(one: SetupSeries) -> str:
    return f"{one.pooled.reached}/{len(one.runs)}"


def _summary(name: str, row: Row) -> Field:
    """The median, and the interval of the mean below it."""
    unit = column(name).unit
    middle, low, high = (row[f"{name}_{part}"] for part in ("median", "low", "high"))
    below = None
    if isinstance(middle, float) and isinstance(low, float) and isinstance(high, float):
        below = format_interval(low, high, middle, unit)
    return Field(format_cell(middle, unit), _number(middle), below=below or "", is_number=True)


# --- A row a run


def _run_headings(to_target: str) -> list[Heading]:
    return [
        Heading("record", is_number=False),
        Heading("seed"),
        Heading("outcome", is_number=False),
        Heading("at epoch"),
        Heading(f"to {to_target}"),
        *(
            Heading(column(name).heading)
            for name in ("init_seconds", "train_seconds", "eval_seconds")
        ),
        Heading(column("images_per_second").heading),
        Heading(column("final_accuracy").heading),
        Heading(column("best_accuracy").heading),
        Heading(column("peak_memory_bytes").heading),
        Heading("started (UTC)", is_number=False),
    ]


def _runs(one: SetupSeries) -> Iterator[Line]:
    for place, (run, row) in enumerate(zip(one.runs, one.run_rows, strict=True)):
        yield Line(one.number, one.colour, place == 0, tuple(_run_fields(run[1], row)))


_MEASURED = (
    "time_to_target_seconds",
    "init_seconds",
    "train_seconds",
    "eval_seconds",
    "images_per_second",
    "final_accuracy",
    "best_accuracy",
    "peak_memory_bytes",
)


def _run_fields(record: RunRecord, row: Row) -> Iterator[Field]:
    shown = printable(str(row["record_path"] or ""))
    name = PurePosixPath(shown).name or printable(record.run_id)
    yield Field(name, hint=f"{shown or 'not saved'}, run {printable(record.run_id)}")
    yield _value(row, "seed")
    yield _outcome(record)
    epoch = record.target_reached_epoch
    yield Field(format_cell(epoch, Unit.COUNT), epoch, is_number=True)
    for measured in _MEASURED:
        yield _value(row, measured)
    yield Field(f"{record.started_utc:%Y-%m-%d %H:%M:%S}")


def _value(row: Row, name: str) -> Field:
    value = row[name]
    return Field(format_cell(value, column(name).unit), _number(value), is_number=True)


def _number(value: Cell) -> int | float | None:
    return None if isinstance(value, str) else value


def _outcome(record: RunRecord) -> Field:
    if not record.counts:
        return Field(record.outcome, below=run_outcome(record), mark="bad")
    if record.target_reached_epoch is None:
        return Field("missed", mark="middling")
    return Field("reached", mark="good")
