"""How fast the machine itself was on each side, whatever the code: sessions of a machine differ."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from statistics import median

from bench.analysis.cases import interleaved
from bench.records.schema import RunRecord

SESSION_SHIFT = 0.07
"""Share by which the times of two sessions of one machine differ, at most, as far as was seen: 3.9
to 6.9 % for the same code on the same machine, 80 minutes apart."""
SESSION_GAP = timedelta(minutes=30)
"""Time between the runs of two sides from which on they count as two sessions."""
CALIBRATION_NOISE = 0.02
"""Share by which calibrations of one machine may differ by chance."""


def machine_slowdown(base: Sequence[RunRecord], new: Sequence[RunRecord]) -> float | None:
    """Time of equal work on the new side's machine, as a multiple of the base's, by calibration.

    The ratio of the medians; 1 where it is within the calibrations' own noise. None where a run
    has no calibration, or one of other work.
    """
    calibrations = [[run.calibration for run in side] for side in (base, new)]
    known = [[each for each in side if each is not None] for side in calibrations]
    works = {each.work for side in known for each in side}
    if [len(side) for side in known] != [len(base), len(new)] or len(works) != 1:
        return None
    before, after = (median(each.flops_per_second for each in side) for side in known)
    ratio = before / after
    return 1.0 if abs(ratio - 1) <= CALIBRATION_NOISE else ratio


def in_two_sessions(base: Sequence[RunRecord], new: Sequence[RunRecord]) -> bool:
    """Whether one side was measured well after the other."""
    if interleaved(base, new):
        return False
    starts = [[run.started_at for run in side] for side in (base, new)]
    first, second = sorted(starts, key=min)
    return min(second) - max(first) > SESSION_GAP
