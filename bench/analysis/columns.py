"""The columns of tables: one list feeds every format, and its names are a contract.

Readers of the tables (a DataFrame, a spreadsheet, a script) rely on the columns' names, order and
units: accuracy is a fraction, times are seconds, absent is None. Add columns, but never rename one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from bench.analysis import metrics
from bench.analysis.units import Cell, Unit
from bench.records.machine_key import MachineKey
from bench.records.schema import LapKind, RunRecord

Row = dict[str, Cell]
"""Values by column name."""
Run = tuple[Path | None, RunRecord]
"""A record and its file; None where it was not saved."""

SUMMARY_PARTS = ("median", "mean", "low", "high", "iqr", "olympic")
"""Suffixes of the columns that a measured column becomes across runs: fields of `MetricSummary`."""

MEDIAN_ENDS = ("median_low", "median_high")
"""Suffixes of two more such columns, which stand at the end of a row."""

CONDITIONS = frozenset({"other_work_share"})
"""Measured columns that are no result: they say what happened beside the runs."""

MISS_COLUMNS = (
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
"""Columns of a benchmark that count the runs that missed the target, with their 95 % intervals: the
share of seeds that reached it (Wilson); the median time to it, a miss being infinitely long; the
seconds spent for each run that reached it; and the mean time to it, each miss counted as the
schedule, whose end is the longest run's end."""


class Role(StrEnum):
    """What becomes of a column in a row that stands for a whole benchmark."""

    OWN = "own"
    """It differs from run to run and is left out."""
    SHARED = "shared"
    """All runs of a benchmark have it in common."""
    MEASURED = "measured"
    """It is summarized over the completed runs."""


@dataclass(frozen=True, slots=True)
class Column:
    """One property of a run."""

    name: str
    """Name in every machine-readable format."""
    heading: str
    """Heading in tables for people."""
    role: Role
    unit: Unit
    value: Callable[[Path | None, RunRecord], Cell]
    """The property, of a record and its file."""
    missing_is_missed: bool = False
    """Whether a completed run without a value missed the target; otherwise it was not measured."""

    def cell(self, run: Run) -> Cell:
        """The run's value, or None for a number that not every format can hold."""
        return storable(self.value(*run))


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


def storable(value: Cell) -> Cell:
    """The value, or None for a number that not every format can hold."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and abs(value) >= 2**63:
        return None
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
    # The recipe's number, also where a run ended earlier: its status and times say how far it came.
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
    _column("other_work_share", "other work", MEASURED, metrics.busy_share, Unit.FRACTION),
    _column("first_crossing_seconds", "first crossing", MEASURED, metrics.first_crossing_seconds,
            Unit.SECONDS, missing_is_missed=True),
    _column("label", "label", SHARED, lambda r: r.label),
    _column("torch_version", "torch", SHARED, lambda r: r.environment.torch),
    _column("accelerate_version", "accelerate", SHARED, lambda r: r.environment.accelerate),
    _column("commit", "commit", SHARED, lambda r: r.environment.commit),
    _column("machine", "machine", SHARED, lambda r: MachineKey.of(r.environment).label),
    _column("protocol_version", "protocol", SHARED, lambda r: r.protocol.version, Unit.COUNT),
    Column("record_path", "record", OWN, Unit.TEXT, lambda path, _: shown_path(path)),
)  # fmt: skip
"""The columns of a row that stands for a run, in order."""
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
    ends_of_medians = [f"{c.name}_{end}" for c in columns_with(MEASURED) for end in MEDIAN_ENDS]
    return [
        *(c.name for c in columns_with(SHARED)),
        *("runs", "runs_reached"),
        *measured,
        *MISS_COLUMNS,
        *(name for name in ends_of_medians if name not in MISS_COLUMNS),
    ]


def columns_with(role: Role) -> list[Column]:
    """The columns of one role, in order."""
    return [column for column in COLUMNS if column.role is role]


def shown_path(path: Path | None) -> str | None:
    """A path with slashes, relative to the working folder where the file is inside it."""
    if path is None:
        return None
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    # A name that is not UTF-8 cannot be printed.
    return os.fsencode(path.as_posix()).decode("utf-8", "replace")
