"""Units of columns, and their values as people read them."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from bench import text
from bench.stats.summary import MetricSummary

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


_FORMATS: dict[Unit, Callable[[float], str]] = {
    Unit.COUNT: "{:,}".format,
    Unit.FRACTION: text.percent,
    Unit.SECONDS: text.seconds,
    Unit.RATE: text.quantity,
    Unit.BYTES: text.memory,
    Unit.JOULES: text.energy,
}
_INTERVAL_FORMATS: dict[Unit, Callable[[float, float, float], str]] = {
    Unit.FRACTION: lambda low, high, _: text.percent_between(low, high),
    Unit.SECONDS: text.seconds_between,
    Unit.RATE: lambda low, high, _: text.rate_between(low, high),
    Unit.JOULES: text.energy_between,
}
"""Each takes the lower end, the upper end, and the value that the interval stands beside."""


def format_cell(value: Cell, unit: Unit) -> str:
    """A column's value for people."""
    if value is None:
        return text.MISSING
    return text.printable(value) if isinstance(value, str) else _FORMATS[unit](value)


def format_interval(low: float, high: float, like: float, unit: Unit) -> str | None:
    """An interval to stand beside the value `like`; None for a unit without intervals."""
    return _INTERVAL_FORMATS[unit](low, high, like) if unit in _INTERVAL_FORMATS else None


def format_mean_interval(summary: MetricSummary, unit: Unit) -> str | None:
    """The 95 % interval of the mean, to stand beside the median; None where there is none."""
    if summary.median is None or summary.low is None or summary.high is None:
        return None
    return format_interval(summary.low, summary.high, summary.median, unit)


def format_summary(summary: MetricSummary, unit: Unit) -> str:
    """``"41.2 s (40.8–41.6)"``: the median, and the interval of the mean where there is one."""
    median, interval = format_cell(summary.median, unit), format_mean_interval(summary, unit)
    return f"{median} ({interval})" if interval else median
