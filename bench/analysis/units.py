"""Units of columns, and their values as people read them."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum

from bench import text
from bench.stats.intervals import Estimate
from bench.stats.summary import MetricSummary
from bench.text import Rounding

Cell = str | int | float | None
"""A value of a row; None is absent."""


class Unit(StrEnum):
    """How to write a column's values for people."""

    TEXT = "text"
    COUNT = "count"
    FRACTION = "fraction"
    SECONDS = "seconds"
    RATE = "rate"
    BYTES = "bytes"
    JOULES = "joules"


_FORMATS: dict[Unit, Callable[[float, Rounding], str]] = {
    Unit.TEXT: lambda value, rounding: (
        f"{value:,}" if isinstance(value, int) else text.quantity(value, rounding)
    ),
    Unit.COUNT: lambda value, rounding: f"{_counted(value, rounding):,}",
    Unit.FRACTION: lambda value, rounding: text.percent(value, _never_nearest(rounding)),
    Unit.SECONDS: text.seconds,
    Unit.RATE: text.quantity,
    Unit.BYTES: text.memory,
    Unit.JOULES: text.energy,
}
_INTERVAL_FORMATS: dict[Unit, Callable[[float, float | None, float], str]] = {
    Unit.FRACTION: lambda low, high, _: text.percent_between(low, high),
    Unit.SECONDS: text.seconds_between,
    Unit.RATE: lambda low, high, _: text.rate_between(low, high),
    Unit.JOULES: text.energy_between,
}
"""Each takes the lower end, the upper end, and the value that the interval stands beside."""


def format_cell(value: Cell, unit: Unit, rounding: Rounding = Rounding.NEAREST) -> str:
    """A column's value for people; the ends of an interval are to be rounded outwards."""
    if value is None:
        return text.MISSING
    return text.printable(value) if isinstance(value, str) else _FORMATS[unit](value, rounding)


def format_interval(low: float, high: float | None, like: float, unit: Unit) -> str | None:
    """An interval to stand beside the value `like`; None for a unit without intervals.

    Args:
        low: the lower end.
        high: the upper end; None where misses leave the interval without one.
        like: the value.
        unit: the unit of all three.
    """
    return _INTERVAL_FORMATS[unit](low, high, like) if unit in _INTERVAL_FORMATS else None


def format_median_interval(summary: MetricSummary, unit: Unit) -> str | None:
    """The 95 % interval of the median, to stand beside it; None where there is none."""
    if summary.median is None or summary.median_low is None:
        return None
    return format_interval(summary.median_low, summary.median_high, summary.median, unit)


def format_summary(summary: MetricSummary, unit: Unit) -> str:
    """``"41.2 s (40.8–41.6)"``: the median, and its interval where there is one."""
    median, interval = format_cell(summary.median, unit), format_median_interval(summary, unit)
    return f"{median} ({interval})" if interval else median


def format_estimate(estimate: Estimate | None, unit: Unit) -> str:
    """``"45.8 s (41.8–66.9)"``: an estimate, and its interval where there is one."""
    value = format_cell(None if estimate is None else estimate.value, unit)
    interval = format_estimate_interval(estimate, unit)
    return f"{value} ({interval})" if interval else value


def format_estimate_interval(estimate: Estimate | None, unit: Unit) -> str | None:
    """The interval of an estimate, to stand beside it; None where there is none."""
    if estimate is None or estimate.low is None:
        return None
    return format_interval(estimate.low, estimate.high, estimate.value, unit)


def _never_nearest(rounding: Rounding) -> Rounding:
    """An accuracy is rounded down, unless it is the upper end of an interval."""
    return Rounding.DOWN if rounding is Rounding.NEAREST else rounding


def _counted(value: float, rounding: Rounding) -> float:
    """A count; the end of an interval of a mean count becomes whole."""
    if rounding is Rounding.NEAREST or isinstance(value, int):
        return value
    end = text.rounded(value, 0, rounding)
    return int(end) if math.isfinite(end) else end
