"""Records to rows: one list of columns feeds every format, and its names are a contract.

Whoever reads our tables (a DataFrame, a spreadsheet, a script) relies on the columns' names,
order and units: accuracy is a fraction, times are seconds, absent is None. Add columns, but never
rename one.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from bench import notation, stats
from bench.inference import Estimate, share
from bench.records import LapKind, RunRecord, Status
from bench.stats import MISSED, ResultWarning, Summary, benchmark_warnings, completed, summarise
from bench.survival import Trial, expected_estimate, median_seconds, restricted_mean_seconds

Cell = str | int | float | None
Row = dict[str, Cell]
Run = tuple[Path | None, RunRecord]
"""A record and the file it is in; None where it was not saved."""

SUMMARY_PARTS = ("median", "mean", "low", "high", "iqr", "olympic")
"""What a measured column becomes across runs, as suffixes; see `bench.stats.Summary`."""


CENSORED_COLUMNS = (
    "runs_reached_share_low",
    "runs_reached_share_high",
    "time_to_target_seconds_median_low",
    "time_to_target_seconds_median_high",
    "time_to_target_seconds_expected",
    "time_to_target_seconds_expected_low",
    "time_to_target_seconds_expected_high",
    "time_to_target_seconds_restricted_mean",
    "time_to_target_seconds_restricted_low",
    "time_to_target_seconds_restricted_high",
    "time_to_target_seconds_restricted_to",
)
"""Of a benchmark: Wilson's 95 % interval of the share of runs that reached the target; Kaplan and
Meier's of the median time to it, as far as the runs bound it; the seconds spent for a success; the
mean time of runs that are given so long, as long as the longest here took. Each with its interval.
"""


class Role(StrEnum):
    """What becomes of a column in a row that stands for a whole benchmark."""

    OWN = "own"
    """It is one run's own and is left out."""
    SHARED = "shared"
    """All runs of a benchmark have it in common."""
    MEASURED = "measured"
    """It is summed up, over the completed runs."""


class Unit(StrEnum):
    """How to write a column's values for people."""

    TEXT = "text"
    COUNT = "count"
    FRACTION = "fraction"
    SECONDS = "seconds"
    RATE = "rate"
    BYTES = "bytes"
    JOULES = "joules"


_ONE: dict[Unit, Callable[[float], str]] = {
    Unit.COUNT: "{:,}".format,
    Unit.FRACTION: notation.percent,
    Unit.SECONDS: notation.seconds,
    Unit.RATE: notation.quantity,
    Unit.BYTES: notation.memory,
    Unit.JOULES: notation.energy,
}
_BETWEEN: dict[Unit, Callable[[float, float, float], str]] = {
    Unit.FRACTION: lambda low, high, _: notation.percent_between(low, high),
    Unit.SECONDS: notation.seconds_between,
    Unit.RATE: lambda low, high, _: notation.rate_between(low, high),
    Unit.JOULES: notation.energy_between,
}
"""Lower end, upper end, and the value they stand below."""


def written(value: Cell, unit: Unit) -> str:
    """A column's value for people."""
    if value is None:
        return notation.ABSENT
    return notation.inert(value) if isinstance(value, str) else _ONE[unit](value)


def written_between(low: float, high: float, like: float, unit: Unit) -> str | None:
    """An interval, to stand beside `like`; None where nobody writes one of that unit."""
    return _BETWEEN[unit](low, high, like) if unit in _BETWEEN else None


@dataclass(frozen=True, slots=True)
class Column:
    """One thing known of a run."""

    name: str
    """In every machine-readable format."""
    heading: str
    """In tables for people."""
    role: Role
    unit: Unit
    value: Callable[[Path | None, RunRecord], Cell]
    missing_is_missed: bool = False
    """Whether a completed run without a value missed the target, rather than was not measured."""


def _column(
    name: str,
    heading: str,
    role: Role,
    value: Callable[[RunRecord], Cell],
    unit: Unit = Unit.TEXT,
    missing_is_missed: bool = False,
) -> Column:
    """A column whose value is in the record itself."""
    return Column(name, heading, role, unit, lambda _, record: value(record), missing_is_missed)


def _laps(kind: LapKind) -> Callable[[RunRecord], Cell]:
    return lambda record: stats.seconds_of(record, kind)


def _recipe_name(record: RunRecord) -> Cell:
    name = record.recipe.get("name")
    return name if isinstance(name, str) else None


def _recipe_number(field: str) -> Callable[[RunRecord], Cell]:
    def value(record: RunRecord) -> Cell:
        number = record.recipe.get(field)
        return number if isinstance(number, int) and not isinstance(number, bool) else None

    return value


OWN, SHARED, MEASURED = Role.OWN, Role.SHARED, Role.MEASURED

COLUMNS: tuple[Column, ...] = (
    _column("run_id", "run", OWN, lambda r: r.run_id),
    _column("benchmark_id", "benchmark", SHARED, lambda r: r.benchmark_id),
    _column("status", "status", OWN, lambda r: r.outcome),
    _column("reason", "reason", OWN, lambda r: r.reason),
    _column("division", "division", SHARED, lambda r: r.division),
    _column("recipe", "recipe", SHARED, _recipe_name),
    _column("device", "device type", SHARED, lambda r: r.setup.device),
    _column("device_name", "device", SHARED, lambda r: r.setup.device_name),
    _column("processes", "processes", SHARED, lambda r: r.setup.processes, Unit.COUNT),
    _column("machines", "machines", SHARED, lambda r: r.setup.machines, Unit.COUNT),
    _column("parallel_seeds", "runs at a time", SHARED, lambda r: r.setup.parallel_seeds,
            Unit.COUNT),
    _column("threads", "threads", SHARED, lambda r: r.setup.threads, Unit.COUNT),
    _column("precision", "precision", SHARED, lambda r: r.setup.precision),
    _column("kernels", "kernels", SHARED, lambda r: r.setup.computed_by),
    _column("global_batch_size", "batch", SHARED, _recipe_number("batch_size"), Unit.COUNT),
    _column("seed", "seed", OWN, lambda r: r.seed, Unit.COUNT),
    # The recipe's, also where a run ended earlier: how far it came is in its status and times.
    _column("epochs", "epochs", SHARED, _recipe_number("epochs"), Unit.COUNT),
    _column("final_accuracy", "accuracy", MEASURED, lambda r: r.final_accuracy, Unit.FRACTION),
    _column("best_accuracy", "best", MEASURED, stats.best_accuracy, Unit.FRACTION),
    _column("time_to_target_seconds", "to target", MEASURED, stats.time_to_target_seconds,
            Unit.SECONDS, missing_is_missed=True),
    _column("train_time_to_target_seconds", "training to target", MEASURED,
            stats.train_time_to_target_seconds, Unit.SECONDS, missing_is_missed=True),
    _column("cold_time_to_target_seconds", "cold to target", MEASURED,
            stats.cold_time_to_target_seconds, Unit.SECONDS, missing_is_missed=True),
    _column("init_seconds", "init", MEASURED, _laps(LapKind.INIT), Unit.SECONDS),
    _column("warmup_seconds", "warm-up", MEASURED, _laps(LapKind.WARMUP), Unit.SECONDS),
    _column("train_seconds", "training", MEASURED, _laps(LapKind.TRAIN), Unit.SECONDS),
    _column("eval_seconds", "evaluation", MEASURED, _laps(LapKind.EVAL), Unit.SECONDS),
    _column("samples_to_target", "images to target", MEASURED, stats.samples_to_target,
            Unit.COUNT, missing_is_missed=True),
    _column("images_per_second", "images/s", MEASURED, stats.images_per_second, Unit.RATE),
    _column("peak_memory_bytes", "memory", MEASURED, lambda r: r.peak_memory.bytes, Unit.BYTES),
    _column("energy_joules", "energy", MEASURED, stats.energy_joules, Unit.JOULES),
    _column("host_energy_joules", "host energy", MEASURED, stats.host_energy_joules, Unit.JOULES),
    _column("label", "label", SHARED, lambda r: r.label),
    _column("torch_version", "torch", SHARED, lambda r: r.environment.torch),
    _column("accelerate_version", "accelerate", SHARED, lambda r: r.environment.accelerate),
    _column("commit", "commit", SHARED, lambda r: r.environment.commit),
    Column("record_path", "record", OWN, Unit.TEXT, lambda path, _: shown_path(path)),
)  # fmt: skip
"""Every column of a row that stands for a run, in order."""
_BY_NAME = {column.name: column for column in COLUMNS}


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The runs of one recipe on one device set-up that were measured together."""

    runs: tuple[Run, ...]
    """At least one, in the order they were run."""

    @property
    def records(self) -> list[RunRecord]:
        """The runs' records."""
        return [record for _, record in self.runs]

    @property
    def reached(self) -> int:
        """Completed runs that reached the target."""
        return sum(run.target_reached_epoch is not None for run in completed(self.records))

    @property
    def rows(self) -> list[Row]:
        """One row a run."""
        return [run_row(run) for run in self.runs]

    @property
    def target_accuracy(self) -> float:
        """The accuracy to be reached, as a fraction."""
        return self.runs[0][1].protocol.target_accuracy

    @property
    def warnings(self) -> dict[ResultWarning, int | None]:
        """What makes this result doubtful; see `bench.stats.benchmark_warnings`."""
        return benchmark_warnings(self.records)


def benchmarks(runs: Iterable[Run]) -> list[Benchmark]:
    """Sort runs into their benchmarks, the oldest first.

    Runs that share a benchmark's id but not its set-up, recipe or protocol are kept apart.
    """
    groups: dict[tuple[Cell, ...], list[Run]] = {}
    for run in sorted(runs, key=_when):
        groups.setdefault(_setup_key(run), []).append(run)
    return [Benchmark(tuple(group)) for group in groups.values()]


def pooled(benchmarks: Iterable[Benchmark]) -> list[Benchmark]:
    """The same, but benchmarks of one run that differ in nothing but their id as one.

    Whoever needs a fresh process a run (`ab`, for one) starts a benchmark a run.
    """
    groups: dict[tuple[Cell, ...], list[Run]] = {}
    for benchmark in benchmarks:
        first = benchmark.runs[0]
        own_id = "" if first[1].protocol.runs == 1 else first[1].benchmark_id
        key = (own_id, first[1].environment.dirty, *_setup_key(first, but="benchmark_id"))
        groups.setdefault(key, []).extend(benchmark.runs)
    return [Benchmark(tuple(group)) for group in groups.values()]


def column(name: str) -> Column:
    """The column of that name."""
    return _BY_NAME[name]


def run_column_names() -> list[str]:
    """The columns of a row that stands for a run, in order."""
    return [column.name for column in COLUMNS]


def benchmark_column_names() -> list[str]:
    """The columns of a row that stands for a benchmark, in order."""
    measured = [f"{c.name}_{part}" for c in _with(MEASURED) for part in SUMMARY_PARTS]
    return [
        *(c.name for c in _with(SHARED)),
        *("runs", "runs_reached"),
        *measured,
        *CENSORED_COLUMNS,
    ]


def run_rows(benchmarks: Iterable[Benchmark]) -> list[Row]:
    """One row a run."""
    return [row for benchmark in benchmarks for row in benchmark.rows]


def run_row(run: Run) -> Row:
    """What is known of a run, by column."""
    return {column.name: _cell(column.value(*run)) for column in COLUMNS}


def benchmark_rows(benchmarks: Iterable[Benchmark]) -> list[Row]:
    """One row a benchmark."""
    return [benchmark_row(benchmark) for benchmark in benchmarks]


def benchmark_row(benchmark: Benchmark, run_rows: Sequence[Row] | None = None) -> Row:
    """What is known of a benchmark, by column: what its runs share, and what they measured.

    Args:
        benchmark: of which.
        run_rows: `benchmark.rows`, where the caller has them already.
    """
    rows = benchmark.rows if run_rows is None else run_rows
    row: Row = {c.name: rows[0][c.name] for c in _with(SHARED)}
    row["runs"] = len(benchmark.runs)
    row["runs_reached"] = benchmark.reached
    done = [one for one in rows if one["status"] == Status.COMPLETED.value]
    for column in _with(MEASURED):
        summary = _summary(column, done)
        for part in SUMMARY_PARTS:
            row[f"{column.name}_{part}"] = getattr(summary, part)
    return row | _censored([trial(record) for record in completed(benchmark.records)])


def trial(record: RunRecord) -> Trial:
    """A completed run as far as the target is concerned: to it, or to the end of the last lap."""
    seconds = stats.time_to_target_seconds(record)
    if seconds is not None:
        return Trial(seconds, reached=True)
    end = max((lap.start_seconds + lap.seconds for lap in record.laps), default=0.0)
    return Trial(end, reached=False)


def _censored(trials: Sequence[Trial]) -> Row:
    """What is known of the time to target where a run that missed it counts as longer."""
    row: Row = dict.fromkeys(CENSORED_COLUMNS)
    if not trials:
        return row
    reached = share(sum(one.reached for one in trials), len(trials))
    median = median_seconds(trials)
    values: list[float | None] = [*_ends(reached), *_ends(median)]
    if (expected := expected_estimate(trials)) is not None:
        horizon = max(one.seconds for one in trials)
        restricted = restricted_mean_seconds(trials, horizon)
        values += [expected.value, *_ends(expected), restricted.value, *_ends(restricted), horizon]
    return row | dict(zip(CENSORED_COLUMNS, map(_cell, values), strict=False))


def _ends(estimate: Estimate | None) -> tuple[float | None, float | None]:
    return (None, None) if estimate is None else (estimate.low, estimate.high)


def _summary(column: Column, rows: Sequence[Row]) -> Summary:
    values: list[float] = []
    for row in rows:
        value = row[column.name]
        if isinstance(value, int | float):
            values.append(float(value))
        elif column.missing_is_missed:
            values.append(MISSED)
    return summarise(values)


def _with(role: Role) -> list[Column]:
    return [column for column in COLUMNS if column.role is role]


def _when(run: Run) -> tuple[datetime, int, str]:
    record = run[1]
    return (record.started_utc, record.run_index, record.run_id)


def _setup_key(run: Run, but: str | None = None) -> tuple[Cell, ...]:
    """Equal for runs that may be summed up together, one of the shared columns left out."""
    record = run[1]
    return (
        *(column.value(*run) for column in _with(SHARED) if column.name != but),
        record.protocol.model_dump_json(),
        record.setup.model_dump_json(),
        json.dumps(record.recipe, sort_keys=True),
    )


def _cell(value: Cell) -> Cell:
    """The value, or None for a number that not every format can hold."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and abs(value) >= 2**63:
        return None
    return value


def shown_path(path: Path | None) -> str | None:
    """Relative to the working folder where the file is in it; slashes, also on Windows."""
    if path is None:
        return None
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    # A name that is not UTF-8 could be printed nowhere.
    return os.fsencode(path.as_posix()).decode("utf-8", "replace")
