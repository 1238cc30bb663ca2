"""What makes a run or a benchmark doubtful."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

from bench.analysis.metrics import busy_share, completed, seconds_of
from bench.records.schema import LapKind, RunRecord, Status
from bench.stats.intervals import FEWEST_FOR_DRIFT, find_outliers, find_two_groups, location_shift
from bench.stats.summary import FEWEST_RUNS

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
    if groups := find_two_groups(times):
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

    By ranks (`location_shift`), the first half against the second; of many runs, the first
    and the last `MOST_COMPARED`. And only by more than `WORTH_SAYING`.
    """
    half = min(len(times) // 2, MOST_COMPARED)
    if half < FEWEST_FOR_DRIFT // 2 or min(times) <= 0:
        return False
    first, last = ([math.log(t) for t in part] for part in (times[:half], times[-half:]))
    change = location_shift(first, last, DOUBT).as_ratio()
    if change.low is None or change.high is None:
        return False
    established = not change.low <= 1 <= change.high
    return established and not 1 / (1 + WORTH_SAYING) <= change.value <= 1 + WORTH_SAYING


def _outliers(runs: Sequence[RunRecord]) -> int:
    """Completed runs whose training time lies far from the others'."""
    return len(find_outliers(_training_times(runs)))


def _training_times(runs: Sequence[RunRecord]) -> list[float]:
    """Of the completed runs, in the order in which they were made."""
    times = [seconds_of(run, LapKind.TRAIN) for run in completed(runs)]
    return [seconds for seconds in times if seconds is not None]


def _runs_promised(run: RunRecord) -> int:
    """Runs that must be there if this one is."""
    return run.protocol.runs if run.protocol.half_width is None else run.run_index
