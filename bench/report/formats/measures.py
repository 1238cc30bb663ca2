"""What trackers and comparers of other projects are given of a benchmark.

They follow a *name* from commit to commit, so a name says what was set up and never when: recipe,
device, processes, threads, precision, and the label that the user chose. Each name comes once: the
runs of one set-up at one commit are taken together, and of several commits the newest. What such a
format cannot hold is said in a line of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bench import text
from bench.analysis import labels
from bench.analysis.benchmarks import Benchmark
from bench.analysis.columns import COLUMNS, Column, Role, Row, Run
from bench.analysis.metrics import completed
from bench.analysis.rows import benchmark_row, run_row
from bench.analysis.setup_key import PROMISED_RUNS, SetupKey
from bench.analysis.units import Unit
from bench.records.schema import Environment, RunRecord, Status
from bench.text import count_of, printable
from mnist_cnn.errors import UsageError

LONGEST_PART = 200
"""Characters of a recipe, a device or a label that go into a name: Bencher's end at 1,024."""
LARGER_IS_BETTER = (Unit.FRACTION, Unit.RATE)
REACHED_SHARE = "runs_reached_share"

_MARKUP = str.maketrans({"`": "'", "|": "/", "<": "(", ">": ")", "@": "(at)"})
"""What would end the code or the cell in which a name stands, or call somebody."""


@dataclass(frozen=True, slots=True)
class Document:
    """A file for another tool."""

    text: str
    left_out: tuple[str, ...]
    """A line for each kind of thing that it does not hold: how many, and why."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One value of one benchmark."""

    measure: str
    """The name of its column, unit included."""
    unit: Unit
    value: float
    """The mean over completed runs; of a time to target the median, which takes misses in."""
    low: float | None
    """Lower end of the value's 95 % interval; None: not known from so few runs."""
    high: float | None
    """Its upper end."""
    symmetric: bool
    """Whether both ends are as far from the value."""


def newest_by_name(benchmarks: Sequence[Benchmark]) -> tuple[dict[str, Benchmark], list[str]]:
    """The newest benchmark of each name that has completed runs, the oldest first.

    Returns:
        By name; and what was left out, a line each.

    Raises:
        UsageError: there is none.
    """
    found: dict[str, Benchmark] = {}
    older: list[Benchmark] = []
    for benchmark in pool_benchmarks(benchmarks):
        if completed(benchmark.records):
            name = name_of(benchmark)
            if name in found:
                older.append(found.pop(name))
            found[name] = benchmark
    lines = [_not_completed([record for one in benchmarks for record in one.records])]
    if not found:
        raise UsageError(f"nothing to export: {lines[0]}")
    if older:
        runs = sum(len(completed(one.records)) for one in older)
        lines.append(
            f"{count_of(len(older), 'benchmark')} ({count_of(runs, 'run')}): newer ones, of "
            "another commit or set-up, have the same names; name fewer paths, or give each a "
            "--label"
        )
    return found, [line for line in lines if line]


def pool_benchmarks(benchmarks: Sequence[Benchmark]) -> list[Benchmark]:
    """The same runs, those of one set-up at one commit together: `ab` measures them singly.

    Returns:
        The one that was last measured at the end.
    """
    groups: dict[tuple[str, SetupKey], list[Run]] = {}
    for benchmark in benchmarks:
        for run in benchmark.runs:
            key = SetupKey.of(run[1]).ignoring(
                "benchmark_id", "division", "environment.dirty", "label", *PROMISED_RUNS
            )
            groups.setdefault((name_of(benchmark), key), []).append(run)
    found = [
        Benchmark(tuple(sorted(runs, key=lambda run: run[1].started_utc)))
        for runs in groups.values()
    ]
    return sorted(found, key=lambda one: one.runs[-1][1].started_utc)


def name_of(benchmark: Benchmark) -> str:
    """``"fast on AMD EPYC, 1 process, 2 threads, bf16 (label)"``, fit for a table in Markdown."""
    row = run_row(benchmark.runs[0])
    setup = benchmark.runs[0][1].setup
    label = f" ({shortened(printable(str(row['label'])), LONGEST_PART)})" if row["label"] else ""
    what = (str(row["recipe"] or "unnamed recipe"), str(row["device_name"] or "unknown device"))
    recipe, device = (shortened(printable(text), LONGEST_PART) for text in what)
    parts = labels.label_of_setup(setup)
    return f"{recipe} on {device}, {parts}{label}".translate(_MARKUP)


def shortened(text: str, length: int) -> str:
    """The text, with dots for what is beyond that many characters."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


def measures_of(benchmark: Benchmark) -> list[Measure]:
    """Every measured column that has a value, and the share of runs that reached the target."""
    row = benchmark_row(benchmark)
    found = [_point(row, column) for column in COLUMNS if column.role is Role.MEASURED]
    return [point for point in (*found, _reached_share(benchmark, row)) if point]


def measured_seconds(benchmark: Benchmark) -> dict[str, list[float]]:
    """Of each column of times, the values of the completed runs that have one."""
    rows = [run_row(run) for run in benchmark.runs if run[1].counts]
    return {
        column.name: [float(v) for row in rows if isinstance(v := row[column.name], int | float)]
        for column in COLUMNS
        if column.role is Role.MEASURED and column.unit is Unit.SECONDS
    }


def untimed(benchmarks: Sequence[Benchmark]) -> list[str]:
    """The line about benchmarks that have no time to target."""
    number = sum(benchmark_row(one)["time_to_target_seconds_median"] is None for one in benchmarks)
    if not number:
        return []
    return [
        f"the time to target of {count_of(number, 'benchmark')}: half of the runs or more missed"
    ]


def remarks(benchmark: Benchmark) -> list[str]:
    """What somebody who sees only the numbers must know, a line each: runs, misses, warnings."""
    records = completed(benchmark.records)
    target = text.target(benchmark.target_accuracy)
    row = run_row(benchmark.runs[-1])
    known = [(name, row[name]) for name in ("commit", "torch_version") if row[name]]
    return [
        f"{count_of(len(records), 'run')}, {benchmark.reached} reached {target}",
        *(f"{name} {shortened(printable(str(value)), 60)}" for name, value in known),
        *(f"! {warning.value}" for warning in benchmark.warnings),
    ]


def shared(environments: Sequence[Environment], field: str) -> object:
    """A field of the environment, if all have the same; else None."""
    values = {getattr(one, field) for one in environments}
    return values.pop() if len(values) == 1 else None


def _point(row: Row, column: Column) -> Measure | None:
    median, mean, low, high = (
        _number(row[f"{column.name}_{part}"]) for part in ("median", "mean", "low", "high")
    )
    if not column.missing_is_missed:
        return None if mean is None else Measure(column.name, column.unit, mean, low, high, True)
    if median is None:
        return None
    # Kaplan and Meier's, where the rows have it.
    low, high = (_number(row.get(f"{column.name}_median_{end}")) for end in ("low", "high"))
    return Measure(
        column.name,
        column.unit,
        median,
        low if low is None or low <= median else None,
        high if high is None or high >= median else None,
        symmetric=False,
    )


def _reached_share(benchmark: Benchmark, row: Row) -> Measure:
    low, high = (_number(row[f"{REACHED_SHARE}_{end}"]) for end in ("low", "high"))
    share = benchmark.reached / len(completed(benchmark.records))
    return Measure(REACHED_SHARE, Unit.FRACTION, share, low, high, symmetric=False)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _not_completed(records: Sequence[RunRecord]) -> str:
    ended = Counter(record.outcome for record in records)
    del ended[Status.COMPLETED.value]
    if not ended:
        return ""
    how = ", ".join(f"{number} {outcome}" for outcome, number in sorted(ended.items()))
    return f"{count_of(ended.total(), 'run')} not completed: {how}"
