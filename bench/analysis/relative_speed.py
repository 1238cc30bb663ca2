"""How fast each row of a report is, relative to the runs of one label.

Relative speed is the baseline's time to target divided by the row's: 2 is twice as fast. It and its
interval are the inverse of what `mnist-bench compare` says of the same runs. Runs that `compare`
refuses have no relative speed, but a reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.analysis.benchmarks import Benchmark
from bench.analysis.case_comparison import time_to_target
from bench.analysis.cases import Case, group_by_kind, match_cases
from bench.analysis.columns import Row
from bench.analysis.metrics import completed
from bench.analysis.run_sets import RunSet
from bench.analysis.step_code import AGAINST_COLUMN, codes_differ
from bench.records.schema import RunRecord
from bench.stats.intervals import Estimate
from bench.text import count_of, printable
from mnist_cnn.errors import UsageError, near_match

COLUMNS = (
    "relative_speed",
    "relative_speed_low",
    "relative_speed_high",
    "relative_speed_reason",
    AGAINST_COLUMN,
)
"""Columns: the ratio, the ends of its 95 % interval, why one of these is absent, and the kernels of
both sides where the ratio contains the difference of their code."""


@dataclass(frozen=True, slots=True)
class RelativeSpeed:
    """The relative speed of a row."""

    speed: Estimate | None
    """The ratio with its interval; None where the row cannot be compared."""
    reason: str | None
    """Why the ratio or its interval is absent; None where both are known."""
    kernels: str | None = None
    """``"amx against torch"`` where other code computed the row than the baseline; else None."""

    def row(self) -> Row:
        """The values of `COLUMNS`."""
        speed = self.speed
        numbers = (None,) * 3 if speed is None else (speed.value, speed.low, speed.high)
        return dict(zip(COLUMNS, (*numbers, self.reason, self.kernels), strict=True))


def find_baseline(benchmarks: Sequence[Benchmark], label: str) -> RunSet:
    """The runs of a label.

    Raises:
        UsageError: there are none, or they are not of one kind.
    """
    records = [record for benchmark in benchmarks for record in benchmark.records]
    chosen = tuple(record for record in records if record.label == label)
    if not chosen:
        labels = sorted({printable(record.label) for record in records if record.label})
        raise UsageError(
            f"--baseline: none of these runs has the label {printable(label)!r}"
            f"{near_match(printable(label), labels)}"
        )
    baseline = RunSet(label, chosen)
    (groups,) = group_by_kind(baseline)
    if not any(completed(runs) for runs in groups.values()):
        raise UsageError(f"--baseline: no run labelled {printable(label)!r} was completed")
    return baseline


def relative_speeds(base: RunSet, rows: Sequence[Sequence[RunRecord]]) -> list[RelativeSpeed]:
    """The relative speed of each row.

    The chance of error is shared among all rows that are not the baseline's, as in `compare`.

    Args:
        base: the baseline.
        rows: the runs of each row.
    """
    base_ids = {record.run_id for record in base.records}
    others = sum(base_ids.isdisjoint(record.run_id for record in row) for row in rows)
    return [_relative_speed(base, row, max(1, others)) for row in rows]


def _relative_speed(base: RunSet, records: Sequence[RunRecord], comparisons: int) -> RelativeSpeed:
    base_ids = {record.run_id for record in base.records}
    ids = {record.run_id for record in records}
    if ids == base_ids:
        return RelativeSpeed(Estimate(1.0, None, None), "the baseline")
    if ids & base_ids:
        return RelativeSpeed(None, "part of the baseline")
    try:
        (case,) = match_cases(base, RunSet("the row", tuple(records))).cases
    except UsageError as error:
        return RelativeSpeed(None, printable(str(error)))
    if not case.base or not case.new:
        side = "row" if case.base else "baseline"
        return RelativeSpeed(None, f"no completed run of the {side}'s")
    kernels = _kernels_against(case)
    try:
        line = time_to_target(case, comparisons)
        if line.difference is None:
            return RelativeSpeed(None, printable(line.note or line.verdict.value))
        speed = _inverse(line.difference)
    except ZeroDivisionError:
        return RelativeSpeed(None, "a time to target is zero")
    if speed.low is not None and speed.high is not None:
        return RelativeSpeed(speed, None, kernels)
    compared = count_of(comparisons, "comparison")
    return RelativeSpeed(speed, f"no interval: too few runs for {compared} at once", kernels)


def _kernels_against(case: Case) -> str | None:
    """The kernels of the row and of the baseline where their code differs."""
    if not codes_differ(case.base, case.new):
        return None
    return f"{case.new[0].setup.computed_by} against {case.base[0].setup.computed_by}"


def _inverse(ratio: Estimate) -> Estimate:
    low, high = (None if end is None else 1 / end for end in (ratio.high, ratio.low))
    return Estimate(1 / ratio.value, low, high)
