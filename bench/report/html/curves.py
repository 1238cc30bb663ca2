"""A run's evaluations on its clock: how accurate it was when."""

from __future__ import annotations

from bench.records.schema import LapKind, RunRecord


def curve_points(record: RunRecord) -> list[tuple[float, float]]:
    """Seconds on the run's clock at the end of each evaluation, and its accuracy, 0 to 1."""
    ends = {
        lap.epoch: lap.start_seconds + lap.seconds
        for lap in record.laps
        if lap.kind is LapKind.EVAL
    }
    return [(ends[e.epoch], e.accuracy) for e in record.evaluations if e.epoch in ends]


def seconds_to(curve: list[tuple[float, float]], accuracy: float) -> float | None:
    """When a curve first stood at that accuracy or above; None where it never did."""
    return next((seconds for seconds, reached in curve if reached >= accuracy), None)


def samples_to_target(record: RunRecord) -> int | None:
    """Training images seen when the target was reached; None where it was not."""
    return next(
        (e.samples_seen for e in record.evaluations if e.epoch == record.target_reached_epoch),
        None,
    )
