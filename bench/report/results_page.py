"""results/README.md: every benchmark of the results folder, as its records have it.

The page depends on the records alone, so that the same records always give the same page:
`publish --check` and `verify` compare it with the published one.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from urllib.parse import quote

from bench import text
from bench.analysis import labels
from bench.analysis.columns import column
from bench.analysis.device_numbers import (
    CAPTION,
    CODE,
    DEVICE,
    NOT_MEASURED,
    machine_numbers,
    notes,
)
from bench.analysis.result_tables import ResultEntry, ResultTable, group_into_tables
from bench.analysis.result_warnings import ResultWarning
from bench.analysis.standings import (
    HEADINGS,
    OTHER_RECIPE,
    caption as standings_caption,
    standings,
)
from bench.analysis.step_code import mark_of
from bench.analysis.units import Unit, format_estimate, format_summary
from bench.records.folders import STUDIES_NAME
from bench.records.machine_key import MachineKey
from bench.records.protocol import PROTOCOL_VERSION, QUALITY_TARGET
from bench.records.schema import Environment, RunRecord
from bench.records.store import CHART_NAME
from bench.report.markdown_text import cell, code, table_row
from bench.text import DIFFERENT, MISSING, count_of

MARK = "<!-- Made by `mnist-bench publish` from the records beside it: do not edit. -->"
"""The first line of every results page."""

_DEVICE_CLASSES = {"cpu": "CPU", "cuda": "CUDA", "mps": "MPS", "xpu": "XPU"}
_BENCHMARK_HEADINGS = (
    "id", "to target", "a success", "training only", "reached", "accuracy", "images/s", "recipe",
    "device", "set-up", "label",
)  # fmt: skip
_WHY = "../docs/protocol.md#the-device-number-and-the-code-number"
_SEED = "--seed"
_PUBLISHED_ID = re.compile(r"- (`++[^`]++`++) in \[`")
"""The beginning of a row's line; it repeats without going back, as others may write such a line."""


def render_page(entries: Sequence[ResultEntry]) -> str:
    """The whole page, in Markdown."""
    runs = sum(len(entry.benchmark.runs) for entry in entries)
    lines = [
        MARK,
        "",
        "# Results",
        "",
        *_standing_lines(entries),
        f"![Time to target of the machines above]({CHART_NAME})",
        *_machine_lines(entries),
        "",
        "## Every benchmark",
        "",
        f"{count_of(runs, 'run')} in {count_of(len(entries), 'row')}: all records of the machines' "
        "folders; experiments are in",
        f"[{STUDIES_NAME}]({STUDIES_NAME}/). A row is a benchmark, or runs",
        "that were started one by one and differ only in their seed. A value is the median of the "
        "completed",
        "runs; a run that missed the target counts as infinitely long. In brackets: its 95 % "
        "interval, from 6",
        "runs. A success: the seconds of all completed runs, misses included, for each that "
        "reached the",
        "target. **!** marks a doubtful result; the list below its table says why. "
        f"**{DIFFERENT}** marks a row",
        "that other kernels computed than its table's first row: a difference of times contains "
        "the code's,",
        "not the device's alone.",
        "[What the clock includes](../docs/protocol.md) · "
        "[How to add a device](../docs/contributing-results.md)",
    ]
    for table, rows in group_into_tables(entries).items():
        lines += ["", f"### {_title(table)}", "", table_row(_BENCHMARK_HEADINGS)]
        lines.append(f"|{' --- |' * len(_BENCHMARK_HEADINGS)}")
        lines += [table_line(row, mark_of(_first(row), _first(rows[0]))) for row in rows]
        lines += ["", *map(provenance, rows)]
    return "\n".join(lines) + "\n"


def _standing_lines(entries: Sequence[ResultEntry]) -> Iterator[str]:
    """The sections with one row a machine, a section a division."""
    divisions = standings((entry.id, entry.benchmark) for entry in entries)
    for division, rows in divisions.items():
        yield from (f"## {division.capitalize()} division, one row a machine", "")
        yield from (table_row([*HEADINGS, "id"]), f"|{' --- |' * (len(HEADINGS) + 1)}")
        for row in rows:
            mark = "" if row.is_official else " **!**"
            mark += f" {OTHER_RECIPE}" if row.has_other_recipe else ""
            values = (s.value + (f" ({s.interval})" if s.interval else "") for s in row.values)
            names = (cell(row.measured_with), cell(row.source))
            yield table_row([f"{cell(row.machine)}{mark}", *values, *names])
        yield ""
        doubtful = [row for row in rows if not row.is_official]
        yield from (f"- **!** {cell(row.machine)} {row.remark}" for row in doubtful)
        if doubtful:
            yield ""
    yield from (standings_caption(divisions), "")


def _machine_lines(entries: Sequence[ResultEntry]) -> Iterator[str]:
    """The section with the device number and the code number of each machine."""
    machines = machine_numbers((entry.id, entry.benchmark) for entry in entries)
    headings = ("machine", DEVICE, CODE, f"{DEVICE} measured with", f"{CODE} measured with")
    yield from ("", "## Device number and code number", "", f"{CAPTION} [Why both]({_WHY})", "")
    yield from (table_row(headings), f"|{' --- |' * len(headings)}")
    for machine in machines:
        numbers = (machine.device, machine.code)
        yield table_row(
            [
                f"{cell(machine.name)}{' by name' if machine.known_by_name else ''}",
                *(NOT_MEASURED if number is None else number.text for number in numbers),
                *(
                    MISSING if number is None else f"{cell(number.how)}, {cell(number.source)}"
                    for number in numbers
                ),
            ]
        )
    yield ""
    for sentence, command in notes(machines):
        yield f"- {sentence} {code(command)}" if command else f"- {sentence}"


def table_line(entry: ResultEntry, mark: str = "") -> str:
    """An entry's row in its table.

    Args:
        entry: the row.
        mark: beside the set-up, where other kernels computed it than the table's first row.
    """
    benchmark = entry.benchmark
    run = benchmark.runs[0]
    setup = run[1].setup
    # Misses have a column of their own.
    doubtful = benchmark.warnings.keys() - {ResultWarning.MISSED_TARGET}
    return table_row(
        [
            f"{cell(entry.id)} **!**" if doubtful else cell(entry.id),
            _summary(entry, "time_to_target_seconds"),
            format_estimate(benchmark.seconds_per_success, Unit.SECONDS),
            _summary(entry, "train_time_to_target_seconds"),
            f"{benchmark.reached}/{len(benchmark.runs)}",
            _summary(entry, "final_accuracy"),
            _summary(entry, "images_per_second"),
            cell(column("recipe").cell(run)),
            cell(labels.machine_label(setup.device_name, MachineKey.of(run[1].environment))),
            f"{cell(labels.label_of_record(run[1]))}{mark}",
            cell(run[1].label),
        ]
    )


def provenance(entry: ResultEntry) -> str:
    """How an entry was measured: command, seeds, commit, versions and warnings."""
    records = entry.benchmark.records
    first = records[0]
    environment = first.environment
    facts = [
        f"{_commands([record.command for record in records])}, "
        f"{_seeds([record.seed for record in records])}",
        _code_state(environment),
        f"torch {code(environment.torch)}",
        f"{first.started_utc:%Y-%m-%d}",
    ]
    return " ".join([f"{_reference(entry)}: {', '.join(facts)}.", *_warnings(entry)])


def _code_state(environment: Environment) -> str:
    """The commit, or the version of an installed copy."""
    if environment.commit is not None:
        return f"commit {code(environment.commit)}"
    if environment.version is not None:
        return f"version {code(environment.version)}"
    return "no commit known"


def published_ids(page: str, folder: str) -> list[str]:
    """The ids, as code spans, of the rows that a page has of a folder."""
    link = f"`]({_link(folder)}/): "
    lines = (line for line in page.splitlines() if link in line)
    return [match[1] for match in map(_PUBLISHED_ID.match, lines) if match]


def disagreements(page: str, entry: ResultEntry) -> Iterator[str]:
    """Where a page and an entry's records disagree; nothing when the page does not have the entry.

    The folder identifies the entry too: two folders may hold the same id.
    """
    if code(entry.id) not in published_ids(page, entry.folder):
        return
    # The marks depend on the other rows of the table, which are not looked at here.
    lines = [line.replace(f"` {DIFFERENT} |", "` |") for line in page.splitlines()]
    expected = table_line(entry)
    if expected not in lines:
        start = f"| {cell(entry.id)} "
        rows = [line.split(" | ") for line in lines if line.startswith(start)]
        if not rows:
            yield "its row is missing"
        for name, old, new in zip(
            _BENCHMARK_HEADINGS, *rows[:1], expected.split(" | "), strict=False
        ):
            if old != new:
                yield f"{name}: published {old.strip('| ')}, its raw laps give {new.strip('| ')}"
    if (measured := provenance(entry)) not in lines:
        yield f"how it was measured is not published as its records say: {measured}"


def _title(table: ResultTable) -> str:
    device = _DEVICE_CLASSES.get(table.device) or code(table.device)
    parts = [f"{table.name.capitalize()} division", device]
    if table.target_accuracy != QUALITY_TARGET:
        parts.append(f"to {text.target(table.target_accuracy)}")
    if table.protocol_version != PROTOCOL_VERSION:
        parts.append(f"protocol {table.protocol_version}")
    return ", ".join(parts)


def _summary(entry: ResultEntry, column_name: str) -> str:
    return format_summary(entry.benchmark.summary(column_name), column(column_name).unit)


def _first(entry: ResultEntry) -> RunRecord:
    return entry.benchmark.runs[0][1]


def _reference(entry: ResultEntry) -> str:
    """The id of an entry, and a link to its folder."""
    return f"- {code(entry.id)} in [{code(entry.folder)}]({_link(entry.folder)}/)"


def _link(folder: str) -> str:
    """The folder as a part of an address; its name may be no valid text."""
    return quote(os.fsencode(folder))


def _warnings(entry: ResultEntry) -> Iterator[str]:
    """The warnings about an entry, without the advice that follows their first sentence."""
    runs = count_of(len(entry.benchmark.runs), "run")
    for warning, number in entry.benchmark.warnings.items():
        subject = "" if number is None else f"{number} of {runs}: "
        yield f"**!** {subject}{warning.split('. ')[0].rstrip('.')}."


def _commands(commands: Sequence[Sequence[str]]) -> str:
    """The command line, or all of them when they differ in more than the seed."""
    without_seeds = {tuple(_without_seed(command)) for command in commands}
    differing = [commands[0]] if len(without_seeds) == 1 else commands
    spans = dict.fromkeys(code(shlex.join(command)) for command in differing)
    more = " and so on" if len(set(map(tuple, commands))) > len(spans) else ""
    return " and ".join(spans) + more


def _without_seed(command: Sequence[str]) -> Iterator[str]:
    previous = ""
    for word in command:
        if previous != _SEED and not word.startswith(f"{_SEED}="):
            yield word
        previous = word


def _seeds(seeds: Sequence[int]) -> str:
    ordered = sorted(seeds)
    if len(ordered) == 1:
        return f"seed {ordered[0]}"
    if ordered == list(range(ordered[0], ordered[0] + len(ordered))):
        return f"seeds {ordered[0]} to {ordered[-1]}"
    return f"seeds {', '.join(map(str, ordered))}"
