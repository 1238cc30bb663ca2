"""Results as one HTML page: a file that needs no network, for a browser, a phone or a printer.

Everything that a record says is text here: it passes through `printable`, the template escapes it,
and a Content-Security-Policy lets nothing run or load except what this module wrote.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.analysis import device_numbers, labels
from bench.analysis.result_warnings import ResultWarning
from bench.analysis.scaling import CAPTION, HEADINGS
from bench.analysis.scaling_studies import scaling_studies
from bench.analysis.standings import caption as standings_caption, standings
from bench.analysis.step_code import codes_differ, legend
from bench.records.machine_key import MachineKey
from bench.records.schema import RunRecord
from bench.records.store import UnreadableFile
from bench.report.html import drawing, tables
from bench.report.html.captions import target_name
from bench.report.html.environments import environment_table, ranges
from bench.report.html.figure_result import DrawnFigure, FigureResult, MissingFigure
from bench.report.html.misclassified import misclassified_digits
from bench.report.html.series import SetupSeries
from bench.stats.summary import FEWEST_RUNS
from bench.text import count_of, encodable, printable

if TYPE_CHECKING:
    from jinja2 import Template

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True)
class Highlight:
    """A number at the head of the page."""

    heading: str
    value: str
    about: str
    """Which runs the number is from."""


def to_html(
    all_series: Sequence[SetupSeries],
    figures: Sequence[FigureResult],
    problems: Sequence[UnreadableFile],
) -> str:
    """The whole page.

    Args:
        all_series: the set-ups to show; at least one.
        figures: their figures, by `bench.report.html.figures.draw_figures`.
        problems: files that could not be read.
    """
    style = _style()
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    targets = {series.benchmark.target_accuracy for series in all_series}
    to_target = target_name(all_series)
    page = _template().render(
        count_of=count_of,
        policy=_policy(style, script),
        style=style,
        script=script,
        target=to_target if len(targets) == 1 else "its target",
        scope=_scope(all_series),
        highlights=list(_highlights(all_series, to_target)),
        **_machines(all_series),
        setup_headings=tables.setup_headings(to_target),
        setup_rows=[tables.setup_row(series, all_series[0]) for series in all_series],
        setup_legend=legend()
        if codes_differ(_first_runs(all_series[:1]), _first_runs(all_series))
        else "",
        warnings=list(_warnings(all_series)),
        drawn_figures=[
            (figure, _svg(figure)) for figure in figures if isinstance(figure, DrawnFigure)
        ],
        missing_figures=[figure for figure in figures if isinstance(figure, MissingFigure)],
        studies=scaling_studies([series.benchmark for series in all_series]),
        study_headings=HEADINGS,
        study_caption=CAPTION,
        **_digits(all_series),
        environments=environment_table(all_series),
        run_headings=tables.run_headings(to_target),
        run_rows=[row for series in all_series for row in tables.run_rows(series)],
        problems=[(printable(str(file.path)), printable(file.reason)) for file in problems],
    )
    return encodable(page)


def _template() -> Template:
    # Lazy: jinja2 is slow to import, and only this page needs it.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template("report.html.jinja")


def _machines(all_series: Sequence[SetupSeries]) -> dict[str, object]:
    """What the template shows of one row a machine, and of devices and code."""
    machines = device_numbers.machine_numbers(
        (f"set-up {s.number}", s.benchmark) for s in all_series
    )
    divisions = standings((f"set-up {s.number}", s.benchmark) for s in all_series)
    shown = divisions if len(machines) > 1 else {}  # one machine is compared with none
    return {
        "divisions": [
            (division.capitalize(), [tables.standing_row(row) for row in rows])
            for division, rows in shown.items()
        ],
        "standing_headings": tables.standing_headings(),
        "standing_remarks": [
            printable(f"{row.machine} {row.remark}")
            for rows in shown.values()
            for row in rows
            if not row.is_official
        ],
        "standings_caption": standings_caption(divisions),
        "machine_headings": tables.machine_headings(),
        "machine_rows": [tables.machine_row(machine) for machine in machines],
        "machine_caption": device_numbers.CAPTION,
        "machine_notes": device_numbers.notes(machines),
    }


def _digits(all_series: Sequence[SetupSeries]) -> dict[str, object]:
    """What the template shows of misclassified digits, or why there are none."""
    digits = misclassified_digits(record for series in all_series for _, record in series.runs)
    if isinstance(digits, str):
        return {"digits": None, "digits_runs": "", "no_digits_reason": digits}
    return {
        "digits": digits,
        "digits_runs": count_of(digits.runs, "run"),
        "no_digits_reason": "",
    }


def _first_runs(all_series: Sequence[SetupSeries]) -> list[RunRecord]:
    return [series.first_record for series in all_series]


def _style() -> str:
    """The style sheet, after the figures' palettes for light and dark backgrounds."""
    light, dark = drawing.variables(dark=False), drawing.variables(dark=True)
    sheet = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    return (
        f":root {{ color-scheme: light dark; {light} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n{sheet}"
    )


def _policy(style: str, script: str) -> str:
    """A Content-Security-Policy that allows only this style, this script and inline images."""
    return (
        f"default-src 'none'; style-src '{_source_hash(style)}'; "
        f"script-src '{_source_hash(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _source_hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _svg(figure: DrawnFigure) -> str:
    return drawing.to_svg(figure.figure, figure.name, figure.title, figure.description, alone=False)


def _scope(all_series: Sequence[SetupSeries]) -> str:
    """What the page is about, in one line: runs, set-ups, machines and days."""
    records = [record for series in all_series for _, record in series.runs]
    machines = {
        labels.machine_label(record.setup.device_name, MachineKey.of(record.environment))
        for record in records
    }
    days = sorted({record.started_utc.date() for record in records})
    period = f"{days[0]:%Y-%m-%d}"
    if len(days) > 1:
        period += f" to {days[-1]:%Y-%m-%d}"
    return (
        f"{count_of(len(records), 'run')} of {count_of(len(all_series), 'set-up')} on "
        f"{count_of(len(machines), 'machine')}, {period}"
    )


def _highlights(all_series: Sequence[SetupSeries], to_target: str) -> Iterator[Highlight]:
    """The best set-ups, of those with enough runs for an interval."""
    reliable = [series for series in all_series if len(series.completed) >= FEWEST_RUNS]
    if fastest := _best(reliable, "time_to_target_seconds", -1):
        yield _highlight(f"Fastest to {to_target}", fastest, "time_to_target_seconds")
    closed = [series for series in reliable if series.first_record.division == "closed"]
    fastest_closed = _best(closed, "time_to_target_seconds", -1)
    if fastest_closed and fastest_closed is not fastest:
        yield _highlight("Fastest in the closed division", fastest_closed, "time_to_target_seconds")
    if highest := _best(reliable, "images_per_second", 1):
        yield _highlight("Most images per second", highest, "images_per_second")
    # A run of one epoch measures images a second: it cannot reach the target.
    whole = [series for series in all_series if series.first_record.recipe.get("epochs") != 1]
    completed = sum(len(series.completed) for series in whole)
    reached = sum(series.benchmark.reached for series in whole)
    if whole:
        yield Highlight(
            f"Reached {to_target}",
            f"{reached:,} of {completed:,}",
            "completed runs of all set-ups with more than one epoch",
        )


def _best(all_series: Sequence[SetupSeries], name: str, sign: int) -> SetupSeries | None:
    """The set-up with the greatest median (sign 1) or the least (sign -1); None: none has one."""
    known = [
        (median, series) for series in all_series if (median := series.median(name)) is not None
    ]
    return max(known, key=lambda pair: sign * pair[0])[1] if known else None


def _highlight(heading: str, series: SetupSeries, name: str) -> Highlight:
    cell = tables.summary_cell(series, name)
    facts = [f"{tables.reached_share(series)} runs", cell.below]
    if name == "time_to_target_seconds":
        facts.append(f"{tables.success_cell(series).text} a success")
    about = f"set-up {series.number}: {series.full_name}; {', '.join(filter(None, facts))}"
    return Highlight(heading, cell.text, about)


def _warnings(all_series: Sequence[SetupSeries]) -> Iterator[tuple[str, str]]:
    """Each warning once, after the set-ups and the number of runs that it concerns."""
    for warning in ResultWarning:
        concerned = [series for series in all_series if warning in series.warnings]
        if concerned:
            numbers = ranges([series.number for series in concerned])
            setups = f"et-up{'s' if len(concerned) > 1 else ''} {numbers}"
            runs = sum(series.warnings[warning] or 0 for series in concerned)
            yield (f"{count_of(runs, 'run')} of s{setups}" if runs else f"S{setups}"), warning.value
