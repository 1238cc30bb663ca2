"""Summaries of repeated measurements: median, mean with interval, spread."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.stats.intervals import t_quantile_975
from bench.stats.rcp import olympic_mean

MISSED = math.inf
"""Stands, in what `summarize` is given, for the time of a run that missed the target."""


FEWEST_RUNS = 3
"""Completed runs below which there is no interval: no claim from two."""


@dataclass(frozen=True, slots=True)
class MetricSummary:
    """Repeated measurements of one thing."""

    count: int
    median: float | None = None
    mean: float | None = None
    low: float | None = None
    """Lower end of the 95 % Student-t interval of the mean; None below `FEWEST_RUNS` values."""
    high: float | None = None
    """Its upper end."""
    iqr: float | None = None
    """Between the quartiles, by linear interpolation; likewise."""
    olympic: float | None = None
    """MLPerf's: the mean without the least and the greatest; None where two runs missed."""


def summarize(values: Sequence[float]) -> MetricSummary:
    """Median, mean with its 95 % interval, and more; `MISSED` counts as the module says."""
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
        below, part = divmod(share * (len(ordered) - 1), 1)
        low, high = ordered[int(below)], ordered[min(int(below) + 1, len(ordered) - 1)]
        quartiles.append(low + part * (high - low) if part else low)
    return finite_or_none(quartiles[1] - quartiles[0])


def finite_or_none(value: float) -> float | None:
    """None for what is beyond all range: a record may hold any numbers."""
    return value if math.isfinite(value) else None
