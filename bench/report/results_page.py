"""results/README.md: every benchmark of the results folder, as its records have it.

Made from the records alone, so that the same records always give the same page: `publish --check`
and `verify` compare it with what is published. Text from records stands in code spans, where
Markdown obeys nothing.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from urllib.parse import quote

from bench import text
from bench.analysis import labels
from bench.analysis.columns import Row
from bench.analysis.result_tables import ResultEntry, ResultTable, group_into_tables
from bench.analysis.result_warnings import ResultWarning
from bench.analysis.rows import benchmark_row
from bench.records.protocol import QUALITY_TARGET
from bench.records.store import CHART_NAME
from bench.text import MISSING, count_of, printable

MARK = "<!-- Made by `mnist-bench publish` from the records beside it: do not edit. -->"
"""The first line of a page that was made here."""

_DEVICE_CLASSES = {"cpu": "CPU", "cuda": "CUDA", "mps": "MPS", "xpu": "XPU"}
_HEADINGS = (
    "id", "to target", "training only", "reached", "accuracy", "images/s", "recipe", "device",
    "set-up", "label",
)  # fmt: skip
_SEED = "--seed"
_PUBLISHED_ID = re.compile(r"- (`+[^`]+`+) in \[`+.*`+\]\((\S+)/\): ")


def render_page(found: Sequence[ResultEntry]) -> str:
    """The whole page, in Markdown."""
    runs = sum(len(entry.benchmark.runs) for entry in found)
    lines = [
        MARK,
        "",
        "# Results",
        "",
        f"{count_of(runs, 'run')} in {count_of(len(found), 'row')}: all records of this folder. "
        "A row is a benchmark, or runs",
        "that were started one by one and differ in nothing but their seed. Values are medians of "
        "the",
        "completed runs, a run that missed the target counting as infinitely long; in brackets the "
        "95 %",
        "interval of the mean, from 3 runs on. What is doubtful is marked **!**, and why is said "
        "below each",
        "table. [What is on the clock](../docs/protocol.md) · "
        "[How to add a device](../docs/contributing-results.md)",
        "",
        f"![Time to target of every row that reached it]({CHART_NAME})",
    ]
    for division, rows in group_into_tables(found).items():
        lines += ["", f"## {_title(division)}", "", *_table(rows), "", *map(provenance, rows)]
    return "\n".join(lines) + "\n"


def table_line(entry: ResultEntry) -> str:
    """An entry's row in its table."""
    row = benchmark_row(entry.benchmark)
    setup = entry.benchmark.runs[0][1].setup
    set_up = labels.label_of_setup(setup)
    # Misses are in a column of their own.
    doubtful = entry.benchmark.warnings.keys() - {ResultWarning.MISSED_TARGET}
    cells = [
        f"{cell(entry.id)} **!**" if doubtful else cell(entry.id),
        _measured(row, "time_to_target_seconds"),
        _measured(row, "train_time_to_target_seconds"),
        f"{row['runs_reached']}/{row['runs']}",
        _measured(row, "final_accuracy"),
        _measured(row, "images_per_second"),
        cell(row["recipe"]),
        cell(row["device_name"]),
        cell(set_up),
        cell(row["label"]),
    ]
    return f"| {' | '.join(cells)} |"


def provenance(entry: ResultEntry) -> str:
    """How an entry was measured: command, seeds, commit, versions, and what is doubtful."""
    records = entry.benchmark.records
    first = records[0]
    commit = first.environment.commit
    facts = [
        f"{_commands([record.command for record in records])}, "
        f"{_seeds([record.seed for record in records])}",
        "no commit known" if commit is None else f"commit {code(commit)}",
        f"torch {code(first.environment.torch)}",
        f"{first.started_utc:%Y-%m-%d}",
    ]
    of_all = f"of {count_of(len(records), 'run')}: "
    doubts = [
        # What is to be done about it is for whoever measures, not for whoever reads.
        f"{'' if number is None else f'{number} {of_all}'}{warning.split('. ')[0].rstrip('.')}."
        for warning, number in entry.benchmark.warnings.items()
    ]
    return " ".join(
        [f"{_where(entry)}: {', '.join(facts)}.", *(f"**!** {doubt}" for doubt in doubts)]
    )


def published_ids(text: str, folder: str) -> list[str]:
    """The ids, as code spans, of the rows that a page has of a folder."""
    found = (_PUBLISHED_ID.match(line) for line in text.splitlines())
    return [match[1] for match in found if match and match[2] == _link(folder)]


def disagreements(text: str, entry: ResultEntry) -> Iterator[str]:
    """Where a page says something else of an entry than its records; nothing if it has it not."""
    # Found by where its records are as well: two folders may have the same id.
    if code(entry.id) not in published_ids(text, entry.folder):
        return
    lines = text.splitlines()
    wanted = table_line(entry)
    if wanted not in lines:
        start = f"| {cell(entry.id)} "
        rows = [line.split(" | ") for line in lines if line.startswith(start)]
        if not rows:
            yield "its row is missing"
        for name, old, new in zip(_HEADINGS, *rows[:1], wanted.split(" | "), strict=False):
            if old != new:
                yield f"{name}: published {old.strip('| ')}, its raw laps give {new.strip('| ')}"
    if (how := provenance(entry)) not in lines:
        yield f"how it was measured is not published as its records say: {how}"


def code(text: str) -> str:
    """The text as a code span, in which Markdown obeys nothing; on one line."""
    shown = printable(text) or " "
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    # A backtick at an end needs a blank beside it, and both ends' blanks are then taken off.
    blank = " " if shown[0] in "` " or shown[-1] in "` " else ""
    return f"{fence}{blank}{shown}{blank}{fence}"


def cell(value: object) -> str:
    """A record's text in a cell of a table."""
    if value is None:
        return MISSING
    # Readers of tables disagree on a backslash before a pipe: there must be none.
    span = re.sub(r"\\(?=\|)", r"\\ ", code(str(value)))
    return span.replace("|", "\\|")


def _title(division: ResultTable) -> str:
    device = _DEVICE_CLASSES.get(division.device) or code(division.device)
    title = f"{division.name.capitalize()} division, {device}"
    if division.target_accuracy == QUALITY_TARGET:
        return title
    return f"{title}, to {text.target(division.target_accuracy)}"


def _table(rows: Sequence[ResultEntry]) -> Iterator[str]:
    yield f"| {' | '.join(_HEADINGS)} |"
    yield f"|{' --- |' * len(_HEADINGS)}"
    yield from map(table_line, rows)


def _measured(row: Row, name: str) -> str:
    """The median, and the interval of the mean where there is one."""
    median, low, high = (row[f"{name}_{part}"] for part in ("median", "low", "high"))
    if not isinstance(median, int | float):
        return MISSING
    ends = (low, high) if isinstance(low, float) and isinstance(high, float) else None
    match name:
        case "final_accuracy":
            one, between = text.percent(median), ends and text.percent_between(*ends)
        case "images_per_second":
            one, between = text.quantity(median), ends and text.rate_between(*ends)
        case _:
            one, between = (
                text.seconds(median),
                ends and text.seconds_between(*ends, median),
            )
    return f"{one} ({between})" if between else one


def _where(entry: ResultEntry) -> str:
    return f"- {code(entry.id)} in [{code(entry.folder)}]({_link(entry.folder)}/)"


def _link(folder: str) -> str:
    """The folder as a part of an address, also where its name is not text."""
    return quote(os.fsencode(folder))


def _commands(commands: Sequence[Sequence[str]]) -> str:
    """The command line, or all of them where they differ in more than the seed."""
    without_seeds = {tuple(_without_seed(command)) for command in commands}
    differing = [commands[0]] if len(without_seeds) == 1 else commands
    shown = dict.fromkeys(code(shlex.join(command)) for command in differing)
    again = " and so on" if len(set(map(tuple, commands))) > len(shown) else ""
    return " and ".join(shown) + again


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
