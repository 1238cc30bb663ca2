"""Every number derived from records: of one run, and across the runs of a benchmark.

Standard library only. A value that does not exist is None, never 0 and never a guess.

Across runs, only *completed* runs count. A completed run that missed the target has no time to
target: it is a failure, whatever the time it took. The median and its interval count it as
infinitely long; the median is None when half of the runs or more missed. The mean and its interval
would be infinite, and are None as soon as one run missed. The seconds for each success count the
time that it took.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.protocol_rules import judged_at_the_end
from bench.records.schema import LapKind, RunRecord, Status
from bench.stats.attempts import Attempt
from bench.stats.summary import finite_or_none
from bench.stats.sums import exact_sum


def reached_epoch(record: RunRecord) -> int | None:
    """Epoch whose evaluation counts as reaching the target; None where the run missed it.

    The first at or above the target; in the open division, since version 2 of the protocol, the
    last evaluation of a completed run or none.
    """
    if not judged_at_the_end(record):
        return record.target_reached_epoch
    if not record.evaluations or record.status is not Status.COMPLETED:
        return None
    last = record.evaluations[-1]
    return last.epoch if last.accuracy >= record.protocol.target_accuracy else None


def time_to_target_seconds(record: RunRecord) -> float | None:
    """From the start of the run's clock to the end of the evaluation that reached the target.

    Close to MLPerf's rule (docs/protocol.md has the differences): the clock starts before the run
    reads its data and is never paused, so it includes reading, evaluating and the time between
    laps.
    """
    return _evaluated_seconds(record, reached_epoch(record))


def first_crossing_seconds(record: RunRecord) -> float | None:
    """From the start of the run's clock to the end of the first evaluation at the target or above.

    It is the time to target only where a run is judged by its first crossing: see `reached_epoch`.
    """
    return _evaluated_seconds(record, record.target_reached_epoch)


def train_time_to_target_seconds(record: RunRecord) -> float | None:
    """Training only, up to the end of the epoch that reached the target: the speed-runs' rule."""
    reached = reached_epoch(record)
    if reached is None:
        return None
    return _sum_or_none(
        [
            lap.seconds
            for lap in record.laps
            if lap.kind is LapKind.TRAIN and lap.epoch is not None and lap.epoch <= reached
        ]
    )


def cold_time_to_target_seconds(record: RunRecord) -> float | None:
    """The time to target from nothing: start-up, warm-up and the time to target."""
    warm = time_to_target_seconds(record)
    start_up = seconds_of(record, LapKind.STARTUP, LapKind.WARMUP)
    return None if warm is None or start_up is None else finite_or_none(start_up + warm)


def seconds_of(record: RunRecord, *kinds: LapKind) -> float | None:
    """The sum of all laps of these kinds; None where there is none."""
    return _sum_or_none([lap.seconds for lap in record.laps if lap.kind in kinds])


def images_per_second(record: RunRecord) -> float | None:
    """Training throughput: images of the completed epochs, divided by their train laps."""
    completed_epochs = {epoch.epoch for epoch in record.epochs}
    seconds = _sum_or_none(
        [
            lap.seconds
            for lap in record.laps
            if lap.kind is LapKind.TRAIN and lap.epoch in completed_epochs
        ]
    )
    if not seconds:
        return None
    try:
        return finite_or_none(sum(epoch.samples for epoch in record.epochs) / seconds)
    except OverflowError:
        return None


def all_reduce_share(record: RunRecord) -> float | None:
    """The time of a run's all-reduces, as if each ran alone, as a share of its training time.

    One all-reduce per step, each as long as the one that was measured alone before the first run:
    without the wait for the slowest rank, and with what the backward pass hides. 0 for one rank;
    None where it is not known.
    """
    if record.setup.processes == 1:
        return 0.0
    seconds = seconds_of(record, LapKind.TRAIN)
    if record.all_reduce_seconds is None or not seconds:
        return None
    steps = sum(epoch.steps for epoch in record.epochs)
    return finite_or_none(record.all_reduce_seconds * steps / seconds)


def samples_to_target(record: RunRecord) -> int | None:
    """Training images before the target was reached: depends on luck, not on the device."""
    reached = reached_epoch(record)
    counts = (e.samples_seen for e in record.evaluations if e.epoch == reached)
    return next(counts, None) or None


def best_accuracy(record: RunRecord) -> float | None:
    """The highest accuracy of the run's evaluations. Biased upwards: a claim needs the last one."""
    return max((evaluation.accuracy for evaluation in record.evaluations), default=None)


def energy_joules(record: RunRecord) -> float | None:
    """Energy that the device used from the run's start to its end, evaluation included."""
    return None if record.energy is None else record.energy.device.joules


def host_energy_joules(record: RunRecord) -> float | None:
    """Energy that the machine's processors used during the run, beside an accelerator."""
    if record.energy is None or record.energy.host is None:
        return None
    return record.energy.host.joules


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


def completed(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs that summaries include: completed without a break."""
    return [run for run in runs if run.counts]


def attempt_of(record: RunRecord) -> Attempt:
    """A completed run's time to the target or, where it missed, to the end of its last lap."""
    seconds = time_to_target_seconds(record)
    if seconds is not None:
        return Attempt(seconds, reached=True)
    return Attempt(end_seconds(record), reached=False)


def end_seconds(record: RunRecord) -> float:
    """From the start of the run's clock to the end of its last lap; 0 without laps."""
    return max((lap.start_seconds + lap.seconds for lap in record.laps), default=0.0)


def _sum_or_none(seconds: Sequence[float]) -> float | None:
    return finite_or_none(exact_sum(seconds)) if seconds else None


def _evaluated_seconds(record: RunRecord, epoch: int | None) -> float | None:
    """The end of the evaluation after an epoch on the run's clock; None where there is none."""
    ends = [
        lap.start_seconds + lap.seconds
        for lap in record.laps
        if lap.kind is LapKind.EVAL and lap.epoch == epoch and epoch is not None
    ]
    return finite_or_none(max(ends)) if ends else None
