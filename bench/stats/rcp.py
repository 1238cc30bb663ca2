"""MLPerf's arithmetic of convergence: the olympic mean, and the fewest epochs one may need.

A submission that reaches its target in fewer epochs than the reference probably does something
else. How many fewer may be luck, MLPerf's reference convergence points (RCP) say. Source:
MLCommons' training rules, and `mlperf_logging.rcp_checker`, which `tests/stats/test_rcp.py` holds
this to on the data it comes with. Here both ends count: a backend that needs *more* is as wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from bench.stats.student_t import t_quantile

ALPHA = 0.05
"""One-sided, each way."""


def olympic_mean(values: Sequence[float], dropped: int = 1) -> float | None:
    """The mean without the least and the greatest; None where it has nothing, or a miss, left.

    Args:
        values: a run that missed its target is `math.inf`; one is dropped as the slowest, two are
            too many.
        dropped: at either end.
    """
    kept = sorted(values)[dropped : len(values) - dropped]
    if not kept or not math.isfinite(kept[-1]):
        return None
    return fmean(kept)


@dataclass(frozen=True, slots=True)
class EpochsAllowed:
    """What the olympic mean of a submission may be, by a reference's runs."""

    mean: float
    """The reference's own."""
    fewest: float
    """Less is not luck."""
    most: float
    """More is not luck either; MLPerf lets it pass, for it costs the submitter only."""


def epochs_allowed(reference: Sequence[float], runs: int, dropped: int = 1) -> EpochsAllowed | None:
    """What olympic means of `runs` runs are still luck.

    The pooled t test of two means of one spread, the reference's, which MLPerf takes of all its
    runs and by their number.

    Args:
        reference: what each run of it needed, all finite.
        runs: of the submission.
        dropped: of both, at either end.

    Returns:
        None where a side has no two runs left, and so no spread that could be tested.
    """
    mean = olympic_mean(reference, dropped)
    counts = len(reference) - 2 * dropped, runs - 2 * dropped
    if mean is None or min(counts) < 1 or sum(counts) <= 2:
        return None
    quantile = t_quantile(sum(counts) - 2, 1 - ALPHA)
    half = quantile * pstdev(reference) * math.sqrt(sum(1 / count for count in counts))
    return EpochsAllowed(mean, max(0.0, mean - half), mean + half)
