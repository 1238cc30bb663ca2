"""MLPerf's arithmetic of convergence: the olympic mean, and the fewest epochs that may be luck.

A submission that reaches its target in fewer epochs than the reference probably does something
else. MLPerf's reference convergence points (RCP) say how many fewer may be luck. Source: MLCommons'
training rules, and `mlperf_logging.rcp_checker`; `tests/stats/test_rcp.py` compares the two on the
data that it ships. Here both ends count: a backend that needs *more* epochs is wrong too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from bench.stats.student_t import t_quantile
from bench.stats.sums import exact_sum

ALPHA = 0.05
"""Level of the test, one-sided, each way."""


def olympic_mean(values: Sequence[float], dropped: int = 1) -> float | None:
    """The mean without the smallest and the greatest values; None if no value or a miss remains.

    Args:
        values: a run that missed its target is `math.inf`; one such run is dropped as the slowest,
            two are too many.
        dropped: number of values to drop at either end.
    """
    kept = sorted(values)[dropped : len(values) - dropped]
    if not kept or not math.isfinite(kept[-1]):
        return None
    return fmean(kept)


@dataclass(frozen=True, slots=True)
class EpochsAllowed:
    """Olympic means that a submission may have by luck, given a reference's runs."""

    mean: float
    """The reference's olympic mean."""
    fewest: float
    """Smallest mean that may be luck."""
    most: float
    """Greatest mean that may be luck; MLPerf allows more, as it costs only the submitter."""


def epochs_allowed(reference: Sequence[float], runs: int, dropped: int = 1) -> EpochsAllowed | None:
    """The olympic means of `runs` runs that may be luck.

    The pooled t test of two means with the same standard deviation: the reference's, which MLPerf
    computes from all its runs, as of a population.

    Args:
        reference: what each run of the reference needed, all finite.
        runs: number of runs of the submission.
        dropped: number of runs to drop from either side, at either end.

    Returns:
        None where too few runs remain for a test.
    """
    mean = olympic_mean(reference, dropped)
    counts = len(reference) - 2 * dropped, runs - 2 * dropped
    if mean is None or min(counts) < 1 or sum(counts) <= 2:
        return None
    quantile = t_quantile(sum(counts) - 2, 1 - ALPHA)
    half = quantile * pstdev(reference) * math.sqrt(exact_sum(1 / count for count in counts))
    return EpochsAllowed(mean, max(0.0, mean - half), mean + half)
