"""Summaries of repeated measurements: median and mean with their intervals, spread."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.stats.order_statistics import median_interval
from bench.stats.rcp import olympic_mean
from bench.stats.student_t import t_above

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
    median_low: float | None = None
    """Lower end of the 95 % interval of the median; None where too few values determine it."""
    median_high: float | None = None
    """Upper end of the 95 % interval of the median; None where too few values determine it, or
    where so many are misses that none bounds it."""


def summarize(values: Sequence[float]) -> MetricSummary:
    """Summarize values, of which a miss is `MISSED`."""
    if not values:
        return MetricSummary(count=0)
    count = len(values)
    median = finite_or_none(statistics.median(values))
    mean = finite_or_none(statistics.mean(values))
    if count < FEWEST_RUNS:
        return MetricSummary(count, median, mean)
    low, high = _mean_interval(values, mean)
    median_low, median_high = median_interval(values)
    return MetricSummary(
        count,
        median,
        mean,
        low,
        high,
        iqr=interquartile_range(values),
        olympic=olympic_mean(values),
        median_low=median_low,
        median_high=median_high,
    )


def _mean_interval(
    values: Sequence[float], mean: float | None
) -> tuple[float | None, float | None]:
    """The ends of the Student-t interval; None where a value is a miss or the spread is too great.

    Args:
        values: two or more.
        mean: their mean; None where it is infinite.
    """
    if mean is None:
        return None, None
    try:
        deviation = statistics.stdev(values)
    except OverflowError:
        return None, None
    half = t_above(len(values) - 1, 0.025) * deviation / math.sqrt(len(values))
    return finite_or_none(mean - half), finite_or_none(mean + half)


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
