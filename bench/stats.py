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
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from bench.inference import FEWEST_FOR_DRIFT, outliers, shift, t_quantile_975, two_groups
from bench.rcp import olympic_mean
from bench.records import LapKind, RunRecord, Status

MISSED = math.inf
"""Stands, in what `summarise` is given, for the time of a run that missed the target."""

FEWEST_RUNS = 3
"""Completed runs below which there is no interval: no claim from two."""

BUSY_SHARE = 0.05
"""Share of the cores' time that other programs may use before a run's times are doubted."""

WORTH_SAYING = 0.05
"""Relative difference of training times below which drift and groups are not warned of."""

DOUBT = 0.005
"""Probability, each way, to warn of drift where there is none."""

MOST_COMPARED = 50
"""Runs at either end that are looked at for drift."""

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
        [
            lap.seconds
            for lap in record.laps
            if lap.kind is LapKind.TRAIN and lap.epoch is not None and lap.epoch <= reached
        ]
    )


def cold_time_to_target_seconds(record: RunRecord) -> float | None:
    """The time to target of somebody who starts from nothing: start-up and warm-up before it."""
    warm = time_to_target_seconds(record)
    before = seconds_of(record, LapKind.STARTUP, LapKind.WARMUP)
    return None if warm is None or before is None else _finite(before + warm)


def seconds_of(record: RunRecord, *kinds: LapKind) -> float | None:
    """The sum of all laps of these kinds; None where there is none."""
    return _total([lap.seconds for lap in record.laps if lap.kind in kinds])


def images_per_second(record: RunRecord) -> float | None:
    """Training throughput: the images of the epochs trained to the end, over their train laps."""
    trained = {epoch.epoch for epoch in record.epochs}
    spent = _total(
        [lap.seconds for lap in record.laps if lap.kind is LapKind.TRAIN and lap.epoch in trained]
    )
    if not spent:
        return None
    try:
        return _finite(sum(epoch.samples for epoch in record.epochs) / spent)
    except OverflowError:
        return None


def communication_share(record: RunRecord) -> float | None:
    """What a run's all-reduces would take one after another, as a share of its training.

    One a step, each as long as one was by itself before the first run: without what ranks wait for
    the slowest, and with what the backward pass hides. 0 for one rank; None where it is not known.
    """
    if record.setup.processes == 1:
        return 0.0
    spent = seconds_of(record, LapKind.TRAIN)
    if record.all_reduce_seconds is None or not spent:
        return None
    return _finite(record.all_reduce_seconds * sum(e.steps for e in record.epochs) / spent)


def samples_to_target(record: RunRecord) -> int | None:
    """Training images seen when the target was reached: what depends on luck, not on the device."""
    reached = record.target_reached_epoch
    seen = (e.samples_seen for e in record.evaluations if e.epoch == reached)
    return next(seen, None) or None


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
    iqr: float | None = None
    """Between the quartiles, by linear interpolation; likewise."""
    olympic: float | None = None
    """MLPerf's: the mean without the least and the greatest; None where two runs missed."""


def summarise(values: Sequence[float]) -> Summary:
    """Median, mean with its 95 % interval, and more; `MISSED` counts as the module says."""
    if not values:
        return Summary(count=0)
    count = len(values)
    median = _finite(statistics.median(values))
    mean = _finite(statistics.mean(values))
    if count < FEWEST_RUNS:
        return Summary(count, median, mean)
    robust = {"iqr": _between_quartiles(values), "olympic": olympic_mean(values)}
    if mean is None:
        return Summary(count, median, **robust)
    try:
        deviation = statistics.stdev(values)
    except OverflowError:
        return Summary(count, median, mean, **robust)
    half = t_quantile_975(count - 1) * deviation / math.sqrt(count)
    return Summary(count, median, mean, _finite(mean - half), _finite(mean + half), **robust)


def _between_quartiles(values: Sequence[float]) -> float | None:
    """The interquartile range (Hyndman & Fan's type 7); None where a quartile is a miss."""
    ordered = sorted(values)
    quartiles = []
    for share in (0.25, 0.75):
        below, part = divmod(share * (len(ordered) - 1), 1)
        low, high = ordered[int(below)], ordered[min(int(below) + 1, len(ordered) - 1)]
        quartiles.append(low + part * (high - low) if part else low)
    return _finite(quartiles[1] - quartiles[0])


class ResultWarning(StrEnum):
    """What makes a result doubtful; the text says what to do about it."""

    NOT_COMPLETED = (
        "not completed, so left out of medians, means and intervals. Find out why, then run again."
    )
    NOT_IN_ONE_GO = (
        "resumed or restarted after an interruption, so left out of medians, means and intervals. "
        "Run again for a result."
    )
    CHECKPOINTS = (
        "kept checkpoints, whose writing is in the time to target. Run without --checkpoint-every "
        "for a result."
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
    DRIFT = (
        "the last runs trained longer or shorter than the first ones, so the machine changed "
        "meanwhile. Let it rest and run again, or compare by turns with ab."
    )
    TWO_GROUPS = (
        "training times fall into two groups, so the machine was in two states. Find out which, "
        "and run again in one of them."
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
    """The runs that count across runs: completed in one go."""
    return [run for run in runs if run.counts]


def run_warnings(record: RunRecord) -> list[ResultWarning]:
    """What is doubtful about one run."""
    done = record.counts
    share = busy_share(record)
    found = {
        ResultWarning.NOT_COMPLETED: record.status is not Status.COMPLETED,
        ResultWarning.NOT_IN_ONE_GO: record.status is Status.COMPLETED and not record.counts,
        ResultWarning.CHECKPOINTS: any(lap.kind is LapKind.CHECKPOINT for lap in record.laps),
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
    times = _training_times(runs)
    if drifted(times):
        found[ResultWarning.DRIFT] = None
    if groups := two_groups(times):
        low, high = groups
        if high > (1 + WORTH_SAYING) * low:
            found[ResultWarning.TWO_GROUPS] = None
    if len(completed(runs)) < FEWEST_RUNS:
        found[ResultWarning.FEW_RUNS] = None
    # A run that was interrupted or failed is its benchmark's last, and is named already.
    ended = any(run.status in (Status.INTERRUPTED, Status.FAILED) for run in runs)
    if not ended and len(runs) < max(map(_runs_promised, runs), default=0):
        found[ResultWarning.RUNS_MISSING] = None
    return found


def drifted(times: Sequence[float]) -> bool:
    """Whether the last of repeated measurements are established to differ from the first ones.

    By ranks (`bench.inference.shift`), the first half against the second, of many the first and the
    last `MOST_COMPARED`; and only by more than `WORTH_SAYING`.
    """
    half = min(len(times) // 2, MOST_COMPARED)
    if half < FEWEST_FOR_DRIFT // 2 or min(times) <= 0:
        return False
    first, last = ([math.log(t) for t in part] for part in (times[:half], times[-half:]))
    change = shift(first, last, DOUBT).as_ratio()
    if change.low is None or change.high is None:
        return False
    established = not change.low <= 1 <= change.high
    return established and not 1 / (1 + WORTH_SAYING) <= change.value <= 1 + WORTH_SAYING


def _outliers(runs: Sequence[RunRecord]) -> int:
    """Completed runs whose training time lies far from the others'."""
    return len(outliers(_training_times(runs)))


def _training_times(runs: Sequence[RunRecord]) -> list[float]:
    """Of the completed runs, in the order in which they were made."""
    times = [seconds_of(run, LapKind.TRAIN) for run in completed(runs)]
    return [seconds for seconds in times if seconds is not None]


def _runs_promised(run: RunRecord) -> int:
    """Runs that must be there if this one is."""
    return run.protocol.runs if run.protocol.half_width is None else run.run_index


def _total(seconds: Sequence[float]) -> float | None:
    return _finite(sum(seconds)) if seconds else None


def _finite(value: float) -> float | None:
    """None for what is beyond all range: a record may hold any numbers."""
    return value if math.isfinite(value) else None
