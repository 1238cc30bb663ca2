"""Summaries of repeated measurements: median, mean with interval, spread."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.stats.rcp import olympic_mean
from bench.stats.student_t import t_quantile_975

MISSED = math.inf
"""The value that `summarize` takes for the time of a run that missed the target."""

FEWEST_RUNS = 3
"""Completed runs below which a mean has no interval: two runs support no claim."""


@dataclass(frozen=True, slots=True)
class MetricSummary:
    """Summary of repeated measurements of one metric, in the metric's unit."""

    count: int
    """Number of values, misses included."""
    median: float | None = None
    """Median; a miss counts as infinite. None where half of the values or more are misses."""
    mean: float | None = None
    """Arithmetic mean; None where any value is a miss."""
    low: float | None = None
    """Lower end of the 95 % Student-t interval of the mean; None below `FEWEST_RUNS` values."""
    high: float | None = None
    """Upper end of the 95 % Student-t interval of the mean; None below `FEWEST_RUNS` values."""
    iqr: float | None = None
    """Interquartile range, by linear interpolation; None below `FEWEST_RUNS` values."""
    olympic: float | None = None
    """MLPerf's olympic mean, without the least and the greatest value; None where two missed."""


def summarize(values: Sequence[float]) -> MetricSummary:
    """Summarize values, of which a miss is `MISSED`."""
    if not values:
        return MetricSummary(count=0)
    count = len(values)
    median = finite_or_none(statistics.median(values))
    mean = finite_or_none(statistics.mean(values))
    if count < FEWEST_RUNS:
        return MetricSummary(count, median, mean)
    robust = {"iqr": interquartile_range(values), "olympic": olympic_mean(values)}
    if mean is None:
        return MetricSummary(count, median, **robust)
    try:
        deviation = statistics.stdev(values)
    except OverflowError:
        return MetricSummary(count, median, mean, **robust)
    half = t_quantile_975(count - 1) * deviation / math.sqrt(count)
    return MetricSummary(
        count, median, mean, finite_or_none(mean - half), finite_or_none(mean + half), **robust
    )


def interquartile_range(values: Sequence[float]) -> float | None:
    """The interquartile range (Hyndman & Fan's type 7); None where a quartile is a miss."""
    ordered = sorted(values)
    quartiles = []
    for share in (0.25, 0.75):
        below, fraction = divmod(share * (len(ordered) - 1), 1)
        low, high = ordered[int(below)], ordered[min(int(below) + 1, len(ordered) - 1)]
        quartiles.append(low + fraction * (high - low) if fraction else low)
    return finite_or_none(quartiles[1] - quartiles[0])


def finite_or_none(value: float) -> float | None:
    """The value, or None where it is infinite or not a number."""
    return value if math.isfinite(value) else None
