"""A scaling study: one recipe with several numbers of processes, as objects, cells and rows.

*Strong* scaling keeps the recipe, and with it the global batch. *Weak* scaling keeps the batch of
each process, so that the global batch and the learning rate grow with the number of processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from bench import text
from bench.analysis.benchmarks import Benchmark
from bench.analysis.columns import column
from bench.analysis.result_warnings import UNRANKED, ResultWarning
from bench.analysis.units import Unit, format_cell, format_summary
from bench.stats.amdahl import Amdahl
from bench.stats.intervals import Estimate

COMMUNICATION_UNKNOWN = "these records are older than its measurement"
"""Why a communication share is null."""
HEADINGS = (
    *("processes", "batch", "runs", "images/s", "speed-up", "efficiency", "95 % interval"),
    *("communication", "to target", "a success", "accuracy"),
)
_DOUBTS = (*sorted(UNRANKED), ResultWarning.BUSY_MACHINE, ResultWarning.FEW_RUNS)
"""Warnings that make the times of a point doubtful."""
CAPTION = (
    "Speed-up and efficiency in images a second, over the fewest processes; medians, with their "
    "95 % interval (from 4 runs)."
)
_SUMMARIZED = ("images_per_second", "time_to_target_seconds", "final_accuracy")
"""Measured columns of which a study's rows give the summary."""


class ScalingMode(StrEnum):
    """What stays the same when processes are added."""

    STRONG = "strong"
    """The recipe, and with it the global batch: the training is the same."""
    WEAK = "weak"
    """The batch of each process: the global batch and the learning rate grow."""


@dataclass(frozen=True, slots=True)
class ScalingPoint:
    """The runs with one number of processes."""

    pool: Benchmark
    """All runs with this number of processes."""
    processes: int
    """Number of processes, over all machines."""
    batch_size: int | None
    """Images per step, over all processes; None where the recipe does not say."""
    runs: int
    """Number of completed runs."""
    speedup: Estimate
    """Speed in images per second over that with the fewest processes of the study."""
    efficiency: Estimate
    """Speed-up as a share of the ideal one."""
    communication_share: float | None
    """Median over the runs of `metrics.all_reduce_share`; None where it is not known."""
    oversubscribed: bool
    """Whether the run computed on a CPU with more threads than cores."""

    @property
    def cells(self) -> tuple[str, ...]:
        """The point for people: a text for each of `HEADINGS`."""
        share, ends = self.communication_share, self.efficiency
        success = self.pool.seconds_per_success
        interval = text.MISSING
        if ends.low is not None and ends.high is not None:
            interval = text.whole_percent_between(ends.low, ends.high)
        return (
            str(self.processes),
            text.MISSING if self.batch_size is None else f"{self.batch_size:,}",
            str(self.runs),
            self._summary("images_per_second"),
            f"{self.speedup.value:.2f}",
            f"{100 * ends.value:.0f} %",
            interval,
            text.MISSING if share is None else text.percent(share),
            self._summary("time_to_target_seconds"),
            format_cell(None if success is None else success.value, Unit.SECONDS),
            self._summary("final_accuracy"),
        )

    def _summary(self, column_name: str) -> str:
        return format_summary(self.pool.summary(column_name), column(column_name).unit)


@dataclass(frozen=True, slots=True)
class ScalingStudy:
    """One recipe on one kind of machine, with several numbers of processes."""

    mode: ScalingMode
    name: str
    """What was scaled, in words; printable."""
    points: tuple[ScalingPoint, ...]
    """Two points or more, by rising number of processes."""
    first: int
    """Index, among the benchmarks given, of the first one with the fewest processes."""
    fit: Amdahl | None
    """Amdahl's law, fitted to the runs; None where there is no fit."""
    no_fit: str | None
    """Why there is no fit; None where there is one."""

    @property
    def remarks(self) -> list[str]:
        """Sentences to stand below a table of the study."""
        sentences = [self._fit_in_words()]
        if any(point.communication_share is None for point in self.points):
            sentences.append(f"Communication share: not known, {COMMUNICATION_UNKNOWN}.")
        if crowded := _counts_of(point for point in self.points if point.oversubscribed):
            sentences.append(
                f"Oversubscribed with {crowded}: more threads than cores, which wait for each "
                "other."
            )
        return [*sentences, *self._doubts()]

    def _doubts(self) -> Iterator[str]:
        """What makes the times of points doubtful."""
        for warning in _DOUBTS:
            doubtful = (point for point in self.points if warning in point.pool.warnings)
            if counts := _counts_of(doubtful):
                yield f"! {counts}: {warning}"

    def _fit_in_words(self) -> str:
        if self.fit is None:
            return f"No serial fraction: {self.no_fit}."
        serial = self.fit.serial_fraction
        low, high = serial.low or 0.0, serial.high or 0.0
        sentences = (
            f"Serial fraction by Amdahl's law: {100 * serial.value:.1f} % "
            f"({100 * low:.1f} to {100 * high:.1f} %)."
        )
        if not 0 <= serial.value <= 1:
            sentences += " Outside 0 to 100 %: the law does not describe this."
        if any(point.oversubscribed for point in self.points):
            sentences += " It counts the wait of threads for cores as work that cannot be shared."
        return sentences


def _counts_of(points: Iterable[ScalingPoint]) -> str:
    """``"1 and 2 processes"``; empty without points."""
    counts = [str(point.processes) for point in points]
    return f"{' and '.join(counts)} process{'' if counts == ['1'] else 'es'}" if counts else ""


def scaling_rows(studies: Sequence[ScalingStudy]) -> Iterator[dict[str, object]]:
    """Each study for another program: times in seconds, shares as fractions, null for unknown."""
    for study in studies:
        serial = None if study.fit is None else study.fit.serial_fraction
        yield {
            "scaling": study.mode.value,
            "name": study.name,
            "serial_fraction": None if serial is None else serial.value,
            "serial_fraction_low": None if serial is None else serial.low,
            "serial_fraction_high": None if serial is None else serial.high,
            "serial_fraction_reason": study.no_fit,
            "points": [_point_row(point) for point in study.points],
        }


def _point_row(point: ScalingPoint) -> dict[str, object]:
    return {
        "processes": point.processes,
        "threads": point.pool.records[0].setup.threads,
        "global_batch_size": point.batch_size,
        "runs": point.runs,
        "runs_reached": point.pool.reached,
        "speedup": point.speedup.value,
        "speedup_low": point.speedup.low,
        "speedup_high": point.speedup.high,
        "efficiency": point.efficiency.value,
        "efficiency_low": point.efficiency.low,
        "efficiency_high": point.efficiency.high,
        "communication_share": point.communication_share,
        "communication_share_reason": (
            COMMUNICATION_UNKNOWN if point.communication_share is None else None
        ),
        "oversubscribed": point.oversubscribed,
        **{
            f"{name}_{part}": getattr(point.pool.summary(name), part)
            for name in _SUMMARIZED
            for part in ("median", "mean", "low", "high", "median_low", "median_high")
        },
    }
