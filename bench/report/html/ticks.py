"""Ticks of logarithmic axes: where they stand, and how they are written."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench import text

CLOCK_TICKS = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30),
    *(60, 120, 300, 600, 1200, 1800, 3600, 7200, 18_000, 36_000, 86_400),
)
"""Times in seconds that are round to people."""


def log_range(values: Sequence[float]) -> tuple[float, float]:
    """From below the least value to above the greatest, and wide enough for ticks."""
    low, high = max(min(values), 1e-6), max(*values, 1e-6)
    pad = max(1.12, (high / low) ** 0.06, math.sqrt(2.2 / (high / low)) if high < 2.2 * low else 1)
    return low / pad, high * pad


def count_ticks(low: float, high: float) -> list[float]:
    """Round numbers from about `low` to about `high`."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)
    return [factor * 10.0**power for power in range(first, last + 1) for factor in factors]


def fitting_ticks(round_values: Sequence[float], low: float, high: float) -> list[float]:
    """The round values that fit on the axis; when fewer than three do, evenly spaced ticks."""
    ticks = thin_out([tick for tick in round_values if low <= tick <= high], low, high)
    if len(ticks) >= 3:
        return ticks
    from matplotlib.ticker import MaxNLocator

    even = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in even if low <= tick <= high]


def thin_out(ticks: Sequence[float], low: float, high: float) -> list[float]:
    """Ticks that are at least a seventh of the axis apart, so that they can be read."""
    distance = (math.log(high) - math.log(low)) / 7
    kept: list[float] = []
    for tick in ticks:
        if not kept or math.log(tick / kept[-1]) >= distance:
            kept.append(tick)
    return kept or [math.sqrt(low * high)]


def clock_tick(seconds: float) -> str:
    """``"20 s"``, ``"5 min"``, ``"1:30 min"`` or ``"2 h"``."""
    if seconds >= 3600:
        return f"{seconds / 3600:.3g} h"
    if seconds < 60:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds % 60 == 0 else f"{text.clock(seconds)} min"


def count_tick(value: float) -> str:
    """``"250"``, ``"60k"`` or ``"1.5M"``."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
