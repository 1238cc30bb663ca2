"""Runs that differ in the number of processes alone, and what can be said of them.

*Strong* scaling keeps the recipe, so its global batch; *weak* scaling keeps the batch of each
process, so the global batch and the learning rate grow with their number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from statistics import median

from bench import text
from bench.analysis import labels, metrics
from bench.analysis.benchmarks import Benchmark
from bench.analysis.columns import column
from bench.analysis.metrics import completed
from bench.analysis.units import format_summary
from bench.records.schema import RunRecord
from bench.stats import amdahl
from bench.stats.amdahl import Amdahl
from bench.stats.intervals import Estimate
from bench.text import MISSING, printable

COMMUNICATION_UNKNOWN = "these records are older than its measurement"
"""Why a communication share is null."""
OVERSUBSCRIBED = "oversubscribed"
HEADINGS = (
    *("processes", "batch", "runs", "images/s", "speed-up", "efficiency", "95 % interval"),
    *("communication", "to target", "accuracy", ""),
)
NOTHING = (
    "no recipe was measured with several process counts and otherwise alike (on a CPU, with as "
    "many threads a process)"
)
CAPTION = (
    "Speed-up and efficiency in images a second, over the fewest processes; medians, with the 95 % "
    "interval of the mean in brackets."
)
_FREE = ("batch_size", "peak_learning_rate")
"""Fields of a recipe that weak scaling changes."""
_SUMMARIZED = ("images_per_second", "time_to_target_seconds", "final_accuracy")
"""Measured columns that a point of a study is summarized by."""


@dataclass(frozen=True, slots=True)
class ScalingPoint:
    """A number of processes."""

    processes: int
    batch_size: int | None
    """Images a step, over all processes."""
    runs: int
    """That completed."""
    pool: Benchmark
    """All runs with this number of processes."""
    speedup: Estimate
    """Over the fewest processes of the study, in images a second."""
    efficiency: Estimate
    """Of that, the share of what as many times the processes could bring."""
    communication_share: float | None
    """Of the training time, the median over the runs; see `metrics.communication_share`."""
    oversubscribed: bool
    """On a CPU, more computing threads than cores."""

    @property
    def cells(self) -> tuple[str, ...]:
        """As people read it, a text for each of `HEADINGS`."""
        share, ends = self.communication_share, self.efficiency
        between = MISSING
        if ends.low is not None and ends.high is not None:
            between = f"{100 * ends.low:.0f}–{100 * ends.high:.0f} %"
        return (
            str(self.processes),
            MISSING if self.batch_size is None else f"{self.batch_size:,}",
            str(self.runs),
            _median_and_interval(self.pool, "images_per_second"),
            f"{self.speedup.value:.2f}",
            f"{100 * ends.value:.0f} %",
            between,
            MISSING if share is None else text.percent(share),
            _median_and_interval(self.pool, "time_to_target_seconds"),
            _median_and_interval(self.pool, "final_accuracy"),
            OVERSUBSCRIBED if self.oversubscribed else "",
        )


@dataclass(frozen=True, slots=True)
class ScalingStudy:
    """One recipe on one machine, with several numbers of processes."""

    mode: ScalingMode
    name: str
    """With nothing in it that a terminal would obey."""
    points: tuple[ScalingPoint, ...]
    """By rising number of processes; two or more."""
    first: int
    """Which of the benchmarks given has the fewest processes."""
    fit: Amdahl | None
    no_fit: str | None
    """Why there is no fit."""

    @property
    def remarks(self) -> list[str]:
        """Sentences to stand below a table of it."""
        found = [self._of_fit()]
        if any(point.communication_share is None for point in self.points):
            found.append(f"Communication share: not known, {COMMUNICATION_UNKNOWN}.")
        if any(point.oversubscribed for point in self.points):
            found.append("Oversubscribed: more threads than cores, which wait for each other.")
        return found

    def _of_fit(self) -> str:
        if self.fit is None:
            return f"No serial fraction: {self.no_fit}."
        of = self.fit.serial_fraction
        low, high = of.low or 0.0, of.high or 0.0
        text = (
            f"Serial fraction by Amdahl's law: {100 * of.value:.1f} % "
            f"({100 * low:.1f} to {100 * high:.1f} %)."
        )
        if not 0 <= of.value <= 1:
            text += " Outside 0 to 100 %: the law does not describe this."
        if any(point.oversubscribed for point in self.points):
            text += " It counts the wait of threads for cores as work that cannot be shared."
        return text


def scaling_studies(benchmarks: Sequence[Benchmark]) -> list[ScalingStudy]:
    """What was measured with several process counts and otherwise alike; strong before weak.

    On a CPU, alike includes the threads of each process. Processes on one machine are one study,
    and machines with as many processes each another, which one such machine begins.

    Args:
        benchmarks: pooled, so that each stands for all runs of its set-up.
    """
    found = []
    for mode in ScalingMode:
        keyed = [
            (each, _key(one, mode), index)
            for index, one in enumerate(benchmarks)
            if _times(one)
            for each in (0, _each_machines(one))
            if each or not _on_several(one)
        ]
        for (each, _), group in groupby(sorted(keyed), key=lambda found: found[:2]):
            indices = [index for *_, index in group]
            if each and not any(_on_several(benchmarks[index]) for index in indices):
                continue
            by_count: dict[int, list[int]] = {}
            for index in indices:
                by_count.setdefault(_first(benchmarks[index]).setup.processes, []).append(index)
            if len(by_count) > 1:
                found.append(_study(mode, benchmarks, dict(sorted(by_count.items()))))
    return sorted(found, key=lambda study: (study.mode is ScalingMode.WEAK, study.first))


def _study(
    mode: ScalingMode, benchmarks: Sequence[Benchmark], by_count: dict[int, list[int]]
) -> ScalingStudy:
    pools = {
        count: Benchmark(tuple(run for index in indices for run in benchmarks[index].runs))
        for count, indices in by_count.items()
    }
    times = {count: _times(pool) for count, pool in pools.items()}
    fit: Amdahl | str
    if mode is ScalingMode.WEAK:
        fit = "Amdahl's law is of a problem that stays as it is (strong scaling)"
    else:
        fit = amdahl.fit_amdahl(times)
    fewest = min(pools)
    return ScalingStudy(
        mode=mode,
        name=_name(mode, list(pools.values())),
        points=tuple(_point(pool, times, fewest) for pool in pools.values()),
        first=by_count[fewest][0],
        fit=None if isinstance(fit, str) else fit,
        no_fit=fit if isinstance(fit, str) else None,
    )


def _point(pool: Benchmark, times: dict[int, list[float]], fewest: int) -> ScalingPoint:
    record = _first(pool)
    setup, batch = record.setup, record.recipe.get("batch_size")
    known = map(metrics.all_reduce_share, completed(pool.records))
    shares = [share for share in known if share is not None]
    gain = amdahl.speedup(times[fewest], times[setup.processes])
    if setup.processes == fewest:
        gain = Estimate(1.0, None, None)  # with itself; ranks would give it an interval
    return ScalingPoint(
        processes=setup.processes,
        batch_size=batch if isinstance(batch, int) else None,
        runs=len(times[setup.processes]),
        pool=pool,
        speedup=gain,
        efficiency=amdahl.efficiency(gain, fewest, setup.processes),
        communication_share=median(shares) if shares else None,
        oversubscribed=setup.device == "cpu"
        and setup.processes * setup.threads > record.environment.usable_cores,
    )


def _key(benchmark: Benchmark, mode: ScalingMode) -> str:
    """Equal for benchmarks that differ in the number of processes alone, as the mode has it."""
    path, record = benchmark.runs[0]
    setup, environment = record.setup, record.environment
    recipe = dict(record.recipe)
    if mode is ScalingMode.WEAK:
        batch = recipe.get("batch_size")
        for name in _FREE:
            recipe.pop(name, None)
        # Batches of unequal shares differ by the rounding alone.
        recipe["share"] = batch / setup.processes if isinstance(batch, int) else None
    parts = [
        None if path is None else str(path.parent),
        recipe,
        *(record.label, environment.commit, environment.dirty, environment.torch),
        *(setup.device, setup.device_name, setup.precision, setup.computed_by),
        *(setup.threads if setup.device == "cpu" else None, setup.parallel_seeds),
        *(record.protocol.target_accuracy, record.protocol.stop_at_target),
    ]
    return json.dumps(parts, sort_keys=True, default=str)


def _on_several(benchmark: Benchmark) -> bool:
    return _first(benchmark).setup.machines > 1


def _each_machines(benchmark: Benchmark) -> int:
    """Processes on each machine."""
    setup = _first(benchmark).setup
    return setup.processes // setup.machines


def _first(benchmark: Benchmark) -> RunRecord:
    return benchmark.runs[0][1]


def _times(benchmark: Benchmark) -> list[float]:
    """Seconds an image, of each completed run."""
    rates = (metrics.images_per_second(record) for record in completed(benchmark.records))
    return [1 / rate for rate in rates if rate and 0 < 1 / rate < math.inf]


def _name(mode: ScalingMode, pools: Sequence[Benchmark]) -> str:
    record = _first(pools[0])
    recipe = record.recipe.get("name")
    how = labels.setup_label(
        None,
        record.setup.threads if record.setup.device == "cpu" else None,
        record.setup.precision,
        record.setup.computed_by,
    )
    parts = [f"{mode} scaling of {recipe if isinstance(recipe, str) else 'an unnamed recipe'}"]
    if mode is ScalingMode.WEAK:
        parts.append(_rates(pools))
    if record.label:
        parts.append(f"“{record.label}”")
    if any(map(_on_several, pools)):
        parts.append(f"machines of {text.count_of(_each_machines(pools[0]), 'process')}")
    return printable(", ".join(filter(None, [*parts, how, record.setup.device_name])))


def _rates(pools: Sequence[Benchmark]) -> str:
    """``"peak learning rates 0.6 to 1.2"``: what grew with the batch."""
    rates = [_first(pool).recipe.get("peak_learning_rate") for pool in pools]
    numbers = [float(rate) for rate in rates if isinstance(rate, int | float)]
    return f"peak learning rates {min(numbers):g} to {max(numbers):g}" if numbers else ""


def _median_and_interval(pool: Benchmark, name: str) -> str:
    return format_summary(pool.summary(name), column(name).unit)


def rows(found: Sequence[ScalingStudy]) -> Iterator[dict[str, object]]:
    """Each study for another program: times are seconds, shares fractions, null is not known."""
    for study in found:
        fit = study.fit
        yield {
            "scaling": study.mode.value,
            "name": study.name,
            "serial_fraction": None if fit is None else fit.serial_fraction.value,
            "serial_fraction_low": None if fit is None else fit.serial_fraction.low,
            "serial_fraction_high": None if fit is None else fit.serial_fraction.high,
            "serial_fraction_reason": study.no_fit,
            "points": [_as_row(point) for point in study.points],
        }


def _as_row(point: ScalingPoint) -> dict[str, object]:
    summaries = {name: point.pool.summary(name) for name in _SUMMARIZED}
    return {
        "processes": point.processes,
        "threads": _first(point.pool).setup.threads,
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
            f"{name}_{part}": getattr(summary, part)
            for name, summary in summaries.items()
            for part in ("median", "mean", "low", "high")
        },
    }


class ScalingMode(StrEnum):
    """What stays as it is while processes are added."""

    STRONG = "strong"
    """The recipe, so its global batch: what is trained is the same."""
    WEAK = "weak"
    """The batch of each process: the global batch and the learning rate grow with them."""
