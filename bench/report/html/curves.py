"""A run's accuracy over time: the points of its evaluations, on the run's clock."""

from __future__ import annotations

from bench.records.schema import LapKind, RunRecord

Curve = list[tuple[float, float]]
"""Points: seconds since the run's start, and accuracy as a fraction."""


def curve_points(record: RunRecord) -> Curve:
    """The end of each evaluation on the run's clock, and its accuracy."""
    ends = {
        lap.epoch: lap.start_seconds + lap.seconds
        for lap in record.laps
        if lap.kind is LapKind.EVAL
    }
    return [(ends[e.epoch], e.accuracy) for e in record.evaluations if e.epoch in ends]


def seconds_to(curve: Curve, accuracy: float) -> float | None:
    """Seconds to the first evaluation of at least that accuracy; None when there is none."""
    return next((seconds for seconds, reached in curve if reached >= accuracy), None)
