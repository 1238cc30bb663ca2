"""Records to rows: one list of columns feeds every format, and its names are a contract.

Whoever reads our tables (a DataFrame, a spreadsheet, a script) relies on the columns' names,
order and units: accuracy is a fraction, times are seconds, absent is None. Add columns, but never
rename one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from bench import text
from bench.analysis import metrics
from bench.records.schema import LapKind, RunRecord

Cell = str | int | float | None
Row = dict[str, Cell]
Run = tuple[Path | None, RunRecord]
"""A record and the file it is in; None where it was not saved."""

SUMMARY_PARTS = ("median", "mean", "low", "high", "iqr", "olympic")
"""What a measured column becomes across runs, as suffixes; see `MetricSummary`."""


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
    Unit.FRACTION: text.percent,
    Unit.SECONDS: text.seconds,
    Unit.RATE: text.quantity,
    Unit.BYTES: text.memory,
    Unit.JOULES: text.energy,
}
_BETWEEN: dict[Unit, Callable[[float, float, float], str]] = {
    Unit.FRACTION: lambda low, high, _: text.percent_between(low, high),
    Unit.SECONDS: text.seconds_between,
    Unit.RATE: lambda low, high, _: text.rate_between(low, high),
    Unit.JOULES: text.energy_between,
}
"""Lower end, upper end, and the value they stand below."""


def format_cell(value: Cell, unit: Unit) -> str:
    """A column's value for people."""
    if value is None:
        return text.MISSING
    return text.printable(value) if isinstance(value, str) else _ONE[unit](value)


def format_interval(low: float, high: float, like: float, unit: Unit) -> str | None:
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
    return lambda record: metrics.seconds_of(record, kind)


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
    _column("best_accuracy", "best", MEASURED, metrics.best_accuracy, Unit.FRACTION),
    _column("time_to_target_seconds", "to target", MEASURED, metrics.time_to_target_seconds,
            Unit.SECONDS, missing_is_missed=True),
    _column("train_time_to_target_seconds", "training to target", MEASURED,
            metrics.train_time_to_target_seconds, Unit.SECONDS, missing_is_missed=True),
    _column("cold_time_to_target_seconds", "cold to target", MEASURED,
            metrics.cold_time_to_target_seconds, Unit.SECONDS, missing_is_missed=True),
    _column("init_seconds", "init", MEASURED, _laps(LapKind.INIT), Unit.SECONDS),
    _column("warmup_seconds", "warm-up", MEASURED, _laps(LapKind.WARMUP), Unit.SECONDS),
    _column("train_seconds", "training", MEASURED, _laps(LapKind.TRAIN), Unit.SECONDS),
    _column("eval_seconds", "evaluation", MEASURED, _laps(LapKind.EVAL), Unit.SECONDS),
    _column("samples_to_target", "images to target", MEASURED, metrics.samples_to_target,
            Unit.COUNT, missing_is_missed=True),
    _column("images_per_second", "images/s", MEASURED, metrics.images_per_second, Unit.RATE),
    _column("peak_memory_bytes", "memory", MEASURED, lambda r: r.peak_memory.bytes, Unit.BYTES),
    _column("energy_joules", "energy", MEASURED, metrics.energy_joules, Unit.JOULES),
    _column("host_energy_joules", "host energy", MEASURED, metrics.host_energy_joules, Unit.JOULES),
    _column("label", "label", SHARED, lambda r: r.label),
    _column("torch_version", "torch", SHARED, lambda r: r.environment.torch),
    _column("accelerate_version", "accelerate", SHARED, lambda r: r.environment.accelerate),
    _column("commit", "commit", SHARED, lambda r: r.environment.commit),
    Column("record_path", "record", OWN, Unit.TEXT, lambda path, _: shown_path(path)),
)  # fmt: skip
"""Every column of a row that stands for a run, in order."""
_BY_NAME = {column.name: column for column in COLUMNS}


def column(name: str) -> Column:
    """The column of that name."""
    return _BY_NAME[name]


def run_column_names() -> list[str]:
    """The columns of a row that stands for a run, in order."""
    return [column.name for column in COLUMNS]


def benchmark_column_names() -> list[str]:
    """The columns of a row that stands for a benchmark, in order."""
    measured = [f"{c.name}_{part}" for c in columns_with(MEASURED) for part in SUMMARY_PARTS]
    return [
        *(c.name for c in columns_with(SHARED)),
        *("runs", "runs_reached"),
        *measured,
        *CENSORED_COLUMNS,
    ]


def columns_with(role: Role) -> list[Column]:
    """The columns of one role, in order."""
    return [column for column in COLUMNS if column.role is role]


def shown_path(path: Path | None) -> str | None:
    """Relative to the working folder where the file is in it; slashes, also on Windows."""
    if path is None:
        return None
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    # A name that is not UTF-8 could be printed nowhere.
    return os.fsencode(path.as_posix()).decode("utf-8", "replace")


_ADDED: dict[str, tuple[str, Unit]] = {
    "runs": ("runs", Unit.COUNT),
    "runs_reached": ("reached", Unit.COUNT),
    "runs_reached_share": ("reached, share", Unit.FRACTION),
    "price_per_hour": ("price an hour", Unit.RATE),
    "currency": ("currency", Unit.TEXT),
    "cost_to_target": ("cost", Unit.RATE),
    "relative_speed": ("relative speed", Unit.RATE),
    "relative_speed_reason": ("why no relative speed", Unit.TEXT),
}
_KNOWN = {column.name: (column.heading, column.unit) for column in COLUMNS} | _ADDED

_MEANINGS = {
    Unit.COUNT: "a whole number",
    Unit.FRACTION: "a fraction, 0 to 1",
    Unit.SECONDS: "seconds",
    Unit.RATE: "a number (images a second, money, a ratio)",
    Unit.BYTES: "bytes",
    Unit.JOULES: "joules",
    Unit.TEXT: "text",
}

SHOWN = (
    *("recipe", "division", "device_name", "processes", "threads", "precision", "kernels", "label"),
    *("runs", "runs_reached", "seed", "status"),
    *("time_to_target_seconds", "time_to_target_seconds_median"),
    *("time_to_target_seconds_low", "time_to_target_seconds_high"),
    *("relative_speed", "relative_speed_low", "relative_speed_high"),
    *("train_seconds", "images_per_second", "images_per_second_median"),
    *("final_accuracy", "final_accuracy_median", "final_accuracy_low", "final_accuracy_high"),
    *("cost_to_target", "cost_to_target_median", "currency"),
)
"""What people are shown of a row, unless they ask for other columns."""

LESSER = frozenset(
    {"division", "processes", "threads", "precision", "kernels", "seed", "train_seconds"}
    | {
        f"{name}_{end}"
        for name in ("time_to_target_seconds", "final_accuracy")
        for end in ("low", "high")
    }
)
"""Of these, what goes first where there is no room for all."""


def readable_names(columns: Sequence[str]) -> list[str]:
    """Those of the columns that people are shown, the most important first."""
    return [name for name in SHOWN if name in columns]


def unit_of(name: str) -> Unit:
    """How the values of a column are to be read."""
    return _KNOWN[_known_prefix(name)][1]


def heading_of(name: str) -> str:
    """Of a column, for people: ``"to target (median)"``."""
    known = _known_prefix(name)
    heading, part = _KNOWN[known][0], name.removeprefix(known).strip("_").replace("_", " ")
    return f"{heading} ({part})" if part else heading


def is_text(name: str) -> bool:
    """Whether a column's values are text, rather than numbers."""
    return unit_of(name) is Unit.TEXT


def is_whole(name: str) -> bool:
    """Whether its numbers are whole ones: counted, not measured and not summed up."""
    return unit_of(name) in (Unit.COUNT, Unit.BYTES) and name in _KNOWN


def meaning_of(name: str) -> str:
    """What its values are, in words: ``"seconds"``, ``"a fraction, 0 to 1"``."""
    return _MEANINGS[unit_of(name)]


def _known_prefix(name: str) -> str:
    """The longest known name that is this one or its beginning."""
    known = name
    while known not in _KNOWN:
        known, underscore, _ = known.rpartition("_")
        if not underscore:
            raise KeyError(name)
    return known
