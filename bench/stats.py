"""Every number derived from records: of one run, and across the runs of a benchmark.

Standard library only. A value that does not exist is None, never 0 and never a guess.

Across runs, only *completed* runs count. A completed run that missed the target has no time to
it; its time is longer than any that was measured. The median is the one summary that can take
that in: it counts such a run as infinitely long, and so is None once half of the runs or more
missed. The mean and its interval would be infinite, and are None as soon as one run missed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from bench.inference import outliers
from bench.records import Lap, LapKind, RunRecord, Status

MISSED = math.inf
"""Stands, in what `summarise` is given, for the time of a run that missed the target."""

FEWEST_RUNS = 3
"""Completed runs below which there is no interval: no claim from two."""

BUSY_SHARE = 0.05
"""Share of the cores' time that other programs may use before a run's times are doubted."""

THROTTLED_SHARE = 0.01
"""Share of a run's time that a GPU may be slowed down before the run's times are doubted."""

THROTTLED_FOR = frozenset(
    {
        "power cap",
        "hardware slowdown",
        "software thermal slowdown",
        "hardware thermal slowdown",
        "hardware power brake",
    }
)
"""Of what holds a GPU's clocks down (`GpuState.throttle_reasons`), what should not."""

# Student's t at 0.975, by degrees of freedom from 1 on.
_T_975 = (
    12.70620, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.30600, 2.26216, 2.22814,
    2.20099, 2.17881, 2.16037, 2.14479, 2.13145, 2.11991, 2.10982, 2.10092, 2.09302, 2.08596,
    2.07961, 2.07387, 2.06866, 2.06390, 2.05954, 2.05553, 2.05183, 2.04841, 2.04523, 2.04227,
)  # fmt: skip
_Z_975 = 1.959963984540054
"""The same quantile of the normal distribution, which Student's approaches."""


def time_to_target_seconds(record: RunRecord) -> float | None:
    """From the start of the run's clock to the end of the evaluation that reached the target.

    MLPerf's rule: the clock starts before the data is touched and is never paused, so reading,
    evaluating and whatever lies between two laps is in it.
    """
    reached = record.target_reached_epoch
    if reached is None:
        return None
    ends = [
        lap.start_seconds + lap.seconds
        for lap in record.laps
        if lap.kind is LapKind.EVAL and lap.epoch == reached
    ]
    return _finite(max(ends)) if ends else None


def train_time_to_target_seconds(record: RunRecord) -> float | None:
    """Training alone, up to the end of the epoch that reached the target: the speed-runs' rule."""
    reached = record.target_reached_epoch
    if reached is None:
        return None
    return _total(
        lap
        for lap in record.laps
        if lap.kind is LapKind.TRAIN and lap.epoch is not None and lap.epoch <= reached
    )


def cold_time_to_target_seconds(record: RunRecord) -> float | None:
    """The time to target of somebody who starts from nothing: start-up and warm-up before it."""
    warm = time_to_target_seconds(record)
    before = seconds_of(record, LapKind.STARTUP, LapKind.WARMUP)
    return None if warm is None or before is None else _finite(before + warm)


def seconds_of(record: RunRecord, *kinds: LapKind) -> float | None:
    """The sum of all laps of these kinds; None where there is none."""
    return _total(lap for lap in record.laps if lap.kind in kinds)


def images_per_second(record: RunRecord) -> float | None:
    """Training throughput: the images of the epochs trained to the end, over their train laps."""
    trained = {epoch.epoch for epoch in record.epochs}
    spent = _total(lap for lap in record.laps if lap.kind is LapKind.TRAIN and lap.epoch in trained)
    if not spent:
        return None
    try:
        return _finite(sum(epoch.samples for epoch in record.epochs) / spent)
    except OverflowError:
        return None


def best_accuracy(record: RunRecord) -> float | None:
    """The highest of the run's evaluations. Biased upwards: a claim needs the final one."""
    return max((evaluation.accuracy for evaluation in record.evaluations), default=None)


def energy_joules(record: RunRecord) -> float | None:
    """What the device used from the run's start to its end, evaluation included."""
    return None if record.energy is None else record.energy.device.joules


def host_energy_joules(record: RunRecord) -> float | None:
    """What the machine's processors used meanwhile, beside an accelerator."""
    if record.energy is None or record.energy.host is None:
        return None
    return record.energy.host.joules


def throttled(record: RunRecord) -> bool:
    """Whether heat or a power limit slowed down what trained, as far as the machine tells."""
    seen = record.monitoring
    if seen is None:
        return False
    longest = THROTTLED_SHARE * record.load.elapsed_seconds
    return bool(seen.cpu_throttle_events) or any(
        THROTTLED_FOR & {*(gpu.before.throttle_reasons or ()), *(gpu.after.throttle_reasons or ())}
        or max((gpu.throttled_seconds or {}).values(), default=0.0) > longest
        for gpu in seen.gpus
    )


def shared_gpu(record: RunRecord) -> bool:
    """Whether another process computed on a GPU of the run's, before it or after it."""
    seen = record.monitoring
    return seen is not None and any(
        gpu.before.other_processes or gpu.after.other_processes for gpu in seen.gpus
    )


def busy_share(record: RunRecord) -> float | None:
    """Share of the usable cores' time, 0 to 1, that programs other than this run were busy."""
    load = record.load
    if load.busy_seconds is None or load.own_seconds is None:
        return None
    try:
        available = load.elapsed_seconds * record.environment.usable_cores
        return max(0.0, load.busy_seconds - load.own_seconds) / available
    except (OverflowError, ZeroDivisionError):
        return None


@dataclass(frozen=True, slots=True)
class Summary:
    """Repeated measurements of one thing."""

    count: int
    median: float | None = None
    mean: float | None = None
    low: float | None = None
    """Lower end of the 95 % Student-t interval of the mean; None below `FEWEST_RUNS` values."""
    high: float | None = None
    """Its upper end."""


def summarise(values: Sequence[float]) -> Summary:
    """Median, mean and the mean's 95 % interval; `MISSED` values count as the module says."""
    if not values:
        return Summary(count=0)
    count = len(values)
    median = _finite(statistics.median(values))
    mean = _finite(statistics.mean(values))
    if mean is None or count < FEWEST_RUNS:
        return Summary(count, median, mean)
    try:
        deviation = statistics.stdev(values)
    except OverflowError:
        return Summary(count, median, mean)
    half = t_quantile_975(count - 1) * deviation / math.sqrt(count)
    return Summary(count, median, mean, _finite(mean - half), _finite(mean + half))


def t_quantile_975(degrees: int) -> float:
    """Student's t that 97.5 % of the distribution lies below.

    From a table up to 30 degrees of freedom; above, the Cornish-Fisher expansion about the
    normal quantile (Abramowitz & Stegun 26.7.5) to the third order, whose error is below 1e-6.

    Args:
        degrees: of freedom, 1 or more.
    """
    if degrees <= len(_T_975):
        return _T_975[degrees - 1]
    z = _Z_975
    return (
        z
        + (z**3 + z) / (4 * degrees)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3)
    )


class ResultWarning(StrEnum):
    """What makes a result doubtful; the text says what to do about it."""

    NOT_COMPLETED = (
        "not completed, so left out of medians, means and intervals. Find out why, then run again."
    )
    MISSED_TARGET = (
        "missed the target, which the median time counts as infinitely long. More epochs may help."
    )
    BUSY_MACHINE = (
        "the machine did other work too, so the times are too long. Close other programs and run "
        "again."
    )
    THROTTLED = (
        "heat or a power limit slowed the device down, so the times are too long. See monitoring "
        "in the record; cool the machine or raise the limit, and run again."
    )
    SHARED_GPU = (
        "another process was on the GPU, so the times may be too long. End it and run again."
    )
    OUTLIER = (
        "trained far longer or shorter than the others (14.8 median deviations), so something else "
        "went on. Run again."
    )
    DIRTY_COMMIT = (
        "files differed from the commit, so nobody can repeat this. Commit, then run again."
    )
    STOPPED_AT_TARGET = (
        "stopped where they reached the target, so their last accuracy says nothing about the "
        "recipe: run without --stop-at-target for that"
    )
    NOT_THE_TEST_SET = (
        "accuracies are of held-out training images, so this is no result. Use a recipe that "
        "evaluates on the test set."
    )
    FEW_RUNS = "fewer than 3 completed runs, so no interval and no claim. Use --runs 3 or more."
    RUNS_MISSING = (
        "some runs of this benchmark are not here, and a selection proves nothing. Read the whole "
        "results folder, or run again."
    )


def completed(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs that count across runs."""
    return [run for run in runs if run.status is Status.COMPLETED]


def run_warnings(record: RunRecord) -> list[ResultWarning]:
    """What is doubtful about one run."""
    done = record.status is Status.COMPLETED
    share = busy_share(record)
    found = {
        ResultWarning.NOT_COMPLETED: not done,
        ResultWarning.MISSED_TARGET: done and record.target_reached_epoch is None,
        ResultWarning.BUSY_MACHINE: share is not None and share > BUSY_SHARE,
        ResultWarning.THROTTLED: throttled(record),
        ResultWarning.SHARED_GPU: shared_gpu(record),
        ResultWarning.DIRTY_COMMIT: record.environment.dirty is True,
        ResultWarning.STOPPED_AT_TARGET: record.protocol.stop_at_target
        and record.target_reached_epoch is not None,
        ResultWarning.NOT_THE_TEST_SET: record.recipe.get("evaluation_split", "test") != "test",
    }
    return [warning for warning, applies in found.items() if applies]


def benchmark_warnings(runs: Sequence[RunRecord]) -> dict[ResultWarning, int | None]:
    """What is doubtful about a benchmark.

    Returns:
        Each warning that applies, with the number of runs it applies to; None where it is about
        the benchmark as a whole.
    """
    of_runs = [warning for run in runs for warning in run_warnings(run)]
    found: dict[ResultWarning, int | None] = {
        warning: of_runs.count(warning) for warning in ResultWarning if warning in of_runs
    }
    if far_off := _outliers(runs):
        found[ResultWarning.OUTLIER] = far_off
    if len(completed(runs)) < FEWEST_RUNS:
        found[ResultWarning.FEW_RUNS] = None
    # A run that was interrupted or failed is its benchmark's last, and is named already.
    ended = any(run.status in (Status.INTERRUPTED, Status.FAILED) for run in runs)
    if not ended and len(runs) < max(map(_runs_promised, runs), default=0):
        found[ResultWarning.RUNS_MISSING] = None
    return found


def _outliers(runs: Sequence[RunRecord]) -> int:
    """Completed runs whose training time lies far from the others'."""
    times = [seconds_of(run, LapKind.TRAIN) for run in completed(runs)]
    return len(outliers([seconds for seconds in times if seconds is not None]))


def _runs_promised(run: RunRecord) -> int:
    """Runs that must be there if this one is."""
    return run.protocol.runs if run.protocol.half_width is None else run.run_index


def _total(laps: Iterable[Lap]) -> float | None:
    seconds = [lap.seconds for lap in laps]
    return _finite(sum(seconds)) if seconds else None


def _finite(value: float) -> float | None:
    """None for what is beyond all range: a record may hold any numbers."""
    return value if math.isfinite(value) else None
