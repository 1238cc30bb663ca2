"""Warnings: what makes a run or a benchmark doubtful, and what to do about it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from statistics import median

from bench.analysis import load_evidence
from bench.analysis.metrics import busy_share, completed, reached_epoch, seconds_of
from bench.analysis.repeats import has_repeated_seeds, one_per_seed
from bench.records.schema import LapKind, RunRecord, Status
from bench.stats.anomalies import find_outliers, find_two_groups
from bench.stats.autocorrelation import Autocorrelation, lag_one
from bench.stats.intervals import location_shift
from bench.stats.summary import FEWEST_RUNS
from bench.text import count_of

BUSY_SHARE = 0.05
"""Share of the cores' time that other programs may use without a warning."""

FEWEST_FOR_DRIFT = 8
"""Number of runs below which drift is not looked for."""

FEWEST_FOR_OUTLIERS = 6
"""Number of runs below which outliers are not looked for: of three runs that scatter by chance, one
in ten lies so far from the other two."""

LEAST_DIFFERENCE = 0.05
"""Relative difference of training times below which neither outliers, drift nor groups are warned
of."""

DRIFT_TAIL = 0.005
"""Probability, each way, of a warning of drift where there is none."""

MOST_COMPARED = 50
"""Number of runs at either end that are compared for drift."""

THROTTLED_SHARE = 0.01
"""Share of a run's time that a GPU may be slowed down without a warning."""

SLOWING_REASONS = frozenset(
    {
        "power cap",
        "hardware slowdown",
        "software thermal slowdown",
        "hardware thermal slowdown",
        "hardware power brake",
    }
)
"""Values of `GpuState.throttle_reasons` that make a result doubtful; the others are normal."""


FEWEST_FOR_FIRST_RUN = 4
"""Number of runs below which a slow first run is not looked for."""

FIRST_RUN_DIFFERENCE = 0.1
"""Relative difference to the other runs below which a first run is not called slow."""

AUTOCORRELATION_LEVEL = 0.01
"""Probability of a warning of autocorrelated runs where the runs are independent."""


class ResultWarning(StrEnum):
    """What makes a result doubtful; the text says what to do about it."""

    NOT_COMPLETED = (
        "not completed, so left out of medians, means and intervals. The record says why; run "
        "again. With --checkpoint-every an interrupted run can be resumed."
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
    FELL_BACK = (
        "trained by other code than this device is meant to have, because that failed: see "
        "fallbacks in the record. Report it, with the driver and the versions."
    )
    SHARED_GPU = (
        "another process was on the GPU, so the times may be too long. End it and run again."
    )
    SUSPENDED = (
        "nothing ran for a part of the time (a suspended process or machine, or code that waits), "
        "so the times are too long. Run again without a break."
    )
    ALLOWANCE_CHANGED = (
        "the cores that the run was allowed to use changed meanwhile (affinity or quota), so the "
        "times are of no one machine. Run again with the same cores to the end."
    )
    QUOTA_THROTTLED = (
        "a CPU quota stopped the run's threads at times, so the times are those of the quota. "
        "Raise the quota, or use fewer threads, and run again."
    )
    IMPOSSIBLE_LOAD = (
        "the counters of CPU time contradict each other, so nobody knows what else ran. Run again; "
        "see load in the record."
    )
    OUTLIER = (
        "trained far longer or shorter than the others (14.8 median absolute deviations), so "
        "something else went on. Run again."
    )
    DRIFT = (
        "the last runs trained longer or shorter than the first ones, so the machine changed "
        "meanwhile. Let it rest and run again, or compare interleaved runs with ab."
    )
    TWO_GROUPS = (
        "training times fall into two groups, so the machine was in two states. Find out which, "
        "and run again in one of them."
    )
    SLOW_FIRST_RUN = (
        "the first run trained far longer than the others, so the warm-up was too short for this "
        "device. Look at the later runs."
    )
    AUTOCORRELATED = (
        "runs resemble the runs before them (lag-1 correlation), so intervals, which assume "
        "independent runs, are too narrow. Compare interleaved runs with ab."
    )
    DIRTY_COMMIT = (
        "files differed from the commit, so nobody can repeat this. Commit, then run again."
    )
    STOPPED_AT_TARGET = (
        "stopped where they reached the target, so their last accuracy says nothing about the "
        "recipe, and they are no result of the open division, which is judged at the last epoch: "
        "run without --stop-at-target for that"
    )
    NOT_THE_TEST_SET = (
        "accuracies are of held-out training images, so this is no result. Use a recipe that "
        "evaluates on the test set."
    )
    REPEATED_SEEDS = (
        "repeated a seed, which measures times again but no accuracy: accuracies, shares and "
        "images needed count each seed once. Use other seeds for more."
    )
    FEW_RUNS = "fewer than 3 completed runs, so no claim. Use --runs 3 or more; intervals take 6."
    RUNS_MISSING = (
        "some runs of this benchmark are not here, and a selection proves nothing. Read the whole "
        "results folder, or run again."
    )
    ENDED_EARLY = "a run was interrupted or failed, and the runs after it were not made."


UNRANKED = frozenset(
    {
        ResultWarning.THROTTLED,
        ResultWarning.SUSPENDED,
        ResultWarning.ALLOWANCE_CHANGED,
        ResultWarning.QUOTA_THROTTLED,
        ResultWarning.IMPOSSIBLE_LOAD,
    }
)
"""Warnings of runs that keep a benchmark out of rankings: its times are not the machine's."""
MOST_BUSY_SHARE = 0.25
"""Share of a benchmark's runs that other work may have disturbed: medians bear it."""


def run_warnings(record: RunRecord) -> list[ResultWarning]:
    """The warnings about one run."""
    share = busy_share(record)
    applies = {
        ResultWarning.NOT_COMPLETED: record.status is not Status.COMPLETED,
        ResultWarning.NOT_IN_ONE_GO: record.status is Status.COMPLETED and not record.counts,
        ResultWarning.CHECKPOINTS: any(lap.kind is LapKind.CHECKPOINT for lap in record.laps),
        ResultWarning.MISSED_TARGET: record.counts and reached_epoch(record) is None,
        ResultWarning.BUSY_MACHINE: share is not None and share > BUSY_SHARE,
        ResultWarning.THROTTLED: throttled(record),
        ResultWarning.FELL_BACK: bool(record.setup.fallbacks),
        ResultWarning.SHARED_GPU: shared_gpu(record),
        ResultWarning.SUSPENDED: load_evidence.suspended(record),
        ResultWarning.ALLOWANCE_CHANGED: load_evidence.allowance_changed(record),
        ResultWarning.QUOTA_THROTTLED: load_evidence.quota_throttled(record),
        ResultWarning.IMPOSSIBLE_LOAD: load_evidence.impossible_load(record),
        ResultWarning.DIRTY_COMMIT: record.environment.dirty is True,
        ResultWarning.STOPPED_AT_TARGET: record.protocol.stop_at_target
        and record.target_reached_epoch is not None,
        ResultWarning.NOT_THE_TEST_SET: record.recipe.get("evaluation_split", "test") != "test",
    }
    return [warning for warning in applies if applies[warning]]


def disturbance(runs: Sequence[RunRecord], noun: str = "run") -> str | None:
    """``"other work disturbed 3 of 5 runs"``, where too many times are not the machine's alone.

    Time in which nothing ran does not count: code that waits looks like a suspended machine, and
    must not be excused by what it does itself. A suspension is of one run, which medians bear.
    """
    doubts = (UNRANKED | {ResultWarning.BUSY_MACHINE}) - {ResultWarning.SUSPENDED}
    found = [kinds for run in runs if (kinds := doubts.intersection(run_warnings(run)))]
    if len(found) <= MOST_BUSY_SHARE * len(runs):
        return None
    is_other_work = all(kinds == {ResultWarning.BUSY_MACHINE} for kinds in found)
    cause = "other work" if is_other_work else "other work or a limit of the machine"
    return f"{cause} disturbed {len(found)} of {count_of(len(runs), noun)}"


def benchmark_warnings(runs: Sequence[RunRecord]) -> dict[ResultWarning, int | None]:
    """The warnings about a benchmark.

    Returns:
        Each warning that applies, with the number of runs it applies to; None where it is about
        the benchmark as a whole.
    """
    counts = Counter(warning for run in runs for warning in run_warnings(run))
    warnings: dict[ResultWarning, int | None] = {
        warning: counts[warning] for warning in ResultWarning if warning in counts
    }
    times = _training_times(runs)
    if outliers := far_times(times):
        warnings[ResultWarning.OUTLIER] = len(outliers)
    if drifted(times):
        warnings[ResultWarning.DRIFT] = None
    if slow_first_run(runs):
        warnings[ResultWarning.SLOW_FIRST_RUN] = None
    if autocorrelation(runs) is not None:
        warnings[ResultWarning.AUTOCORRELATED] = None
    if groups := find_two_groups(times):
        low, high = groups
        if high > (1 + LEAST_DIFFERENCE) * low:
            warnings[ResultWarning.TWO_GROUPS] = None
    if has_repeated_seeds(runs):
        warnings[ResultWarning.REPEATED_SEEDS] = len(completed(runs)) - len(one_per_seed(runs))
    if len(completed(runs)) < FEWEST_RUNS:
        warnings[ResultWarning.FEW_RUNS] = None
    if missing := _missing_runs(runs):
        warnings[missing] = None
    return warnings


def _missing_runs(runs: Sequence[RunRecord]) -> ResultWarning | None:
    """Whether runs were not made, or are not here; None where all are."""
    made = {run.run_index for run in runs}
    if len(made) >= max(map(_runs_expected, runs), default=0):
        return None
    # An interrupted or failed run is the last of its benchmark. Processes that make runs at the
    # same time leave gaps, where one of them has ended.
    has_ended = any(run.status in (Status.INTERRUPTED, Status.FAILED) for run in runs)
    has_gaps = runs[0].setup.parallel_seeds == 1 and len(made) < max(made)
    if has_ended and not has_gaps:
        return ResultWarning.ENDED_EARLY
    return ResultWarning.RUNS_MISSING


def throttled(record: RunRecord) -> bool:
    """Whether heat or a power limit slowed down the device, as far as the machine reports it."""
    monitoring = record.monitoring
    if monitoring is None:
        return False
    longest = THROTTLED_SHARE * record.load.elapsed_seconds
    return bool(monitoring.cpu_throttle_events) or any(
        SLOWING_REASONS & {*(gpu.before.throttle_reasons or ())}
        or SLOWING_REASONS & {*(gpu.after.throttle_reasons or ())}
        or max((gpu.throttled_seconds or {}).values(), default=0.0) > longest
        for gpu in monitoring.gpus
    )


def shared_gpu(record: RunRecord) -> bool:
    """Whether another process computed on one of the run's GPUs, before or after the run."""
    monitoring = record.monitoring
    return monitoring is not None and any(
        gpu.before.other_processes or gpu.after.other_processes for gpu in monitoring.gpus
    )


def far_times(times: Sequence[float]) -> list[float]:
    """The repeated measurements that lie too far from the others to be chance.

    They are outliers of `FEWEST_FOR_OUTLIERS` measurements or more, and differ from the median by
    more than `LEAST_DIFFERENCE`: where times are alike, hyperfine's rule alone takes a difference
    that is not worth saying.
    """
    if len(times) < FEWEST_FOR_OUTLIERS:
        return []
    middle = median(times)
    outliers = find_outliers(times)
    return [time for time in outliers if abs(time - middle) > LEAST_DIFFERENCE * middle]


def drifted(times: Sequence[float]) -> bool:
    """Whether the last of repeated measurements are shown to differ from the first ones.

    The first half is compared with the second by ranks (`location_shift`); of many measurements,
    the first with the last `MOST_COMPARED`. A difference below `LEAST_DIFFERENCE` does not count.
    """
    half = min(len(times) // 2, MOST_COMPARED)
    if half < FEWEST_FOR_DRIFT // 2 or min(times) <= 0:
        return False
    logs = [math.log(seconds) for seconds in times]
    change = location_shift(logs[:half], logs[-half:], DRIFT_TAIL).as_ratio()
    if change.low is None or change.high is None:
        return False
    differs = not change.low <= 1 <= change.high
    return differs and not 1 / (1 + LEAST_DIFFERENCE) <= change.value <= 1 + LEAST_DIFFERENCE


def ranked(runs: Sequence[RunRecord]) -> bool:
    """Whether a benchmark takes part in rankings: see `UNRANKED`."""
    return not any(UNRANKED.intersection(run_warnings(run)) for run in runs)


def slow_first_run(runs: Sequence[RunRecord]) -> bool:
    """Whether the first run of a process trained longer than all later ones, beyond their scatter.

    It takes more than `FIRST_RUN_DIFFERENCE` longer than their median. Its distance to the slowest
    of them is as large as their range or, from `FEWEST_FOR_DRIFT` runs on, it is an outlier.
    """
    times = _training_times(runs)
    if len(times) < FEWEST_FOR_FIRST_RUN or completed(runs)[0].run_index != 1:
        return False
    if completed(runs)[0].protocol.runs == 1:  # each run has a process of its own
        return False
    first, others = times[0], times[1:]
    slowest, fastest = max(others), min(others)
    if first <= slowest or first <= (1 + FIRST_RUN_DIFFERENCE) * median(others):
        return False
    outlier = len(times) >= FEWEST_FOR_DRIFT and first in find_outliers(times)
    return outlier or first - slowest >= slowest - fastest


def autocorrelation(runs: Sequence[RunRecord]) -> Autocorrelation | None:
    """How alike successive training times are; None where they may well be independent."""
    measured = lag_one(_training_times(runs))
    if measured is None or measured.p_value >= AUTOCORRELATION_LEVEL:
        return None
    return measured


def _training_times(runs: Sequence[RunRecord]) -> list[float]:
    """Training seconds of the completed runs, in the order in which they were made."""
    times = [seconds_of(run, LapKind.TRAIN) for run in completed(runs)]
    return [seconds for seconds in times if seconds is not None]


def _runs_expected(run: RunRecord) -> int:
    """Number of runs that must exist if this run exists."""
    return run.protocol.runs if run.protocol.half_width is None else run.run_index
