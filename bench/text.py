"""Numbers and text as people read them: in tables, progress lines and messages."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from enum import StrEnum

from mnist_cnn.escaping import printable as printable

MISSING = "–"
"""Shown where there is no value: a missed target, an unknown amount of memory."""

DIFFERENT = "≠"
"""Beside a row that other kernels computed than the row it is read against."""

_MINUTES_FROM = 120.0
"""Seconds from which a time reads better as minutes and seconds."""
_HOUR = 3600.0
_LONGEST_CLOCK = 100 * _HOUR
_SIGNIFICANT = 15
"""Number of digits that a float holds for certain; what lies beyond is not rounded outwards."""
_EXACT = Context(prec=800)
"""Enough digits for every float with its decimals."""


class Rounding(StrEnum):
    """Which way a number is rounded to the digits that are shown."""

    NEAREST = ROUND_HALF_EVEN
    """A value."""
    DOWN = ROUND_FLOOR
    """The lower end of an interval, and an accuracy."""
    UP = ROUND_CEILING
    """The upper end of an interval."""


def rounded(value: float, decimals: int, rounding: Rounding) -> float:
    """The value, rounded to that many decimals.

    The ends of an interval are rounded outwards: the one that is shown encloses the exact one. The
    decimal that a person would read decides: 0.9946 is 9,946 ten-thousandths, although the float
    is a hair less.
    """
    if not math.isfinite(value):
        return value
    shown = Decimal(f"{value:.{_SIGNIFICANT}g}")
    step = Decimal(1).scaleb(-decimals)
    # Adding 0 makes minus zero zero.
    return float(shown.quantize(step, rounding=rounding.value, context=_EXACT)) + 0.0


def encodable(text: str) -> str:
    """The text with a mark in place of each lone surrogate, which UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode("utf-8")


def shorten(text: str, length: int) -> str:
    """The text; where it is longer, with an ellipsis for its middle, as names differ at the end."""
    if len(text) <= length:
        return text
    end = length * 2 // 5
    return f"{text[: length - end - 1].rstrip()}…{text[len(text) - end :].lstrip()}"


def count_of(number: int, noun: str) -> str:
    """``"1 run"``, ``"3 runs"``, ``"2 processes"``."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"


def quantity(value: float, rounding: Rounding = Rounding.NEAREST) -> str:
    """Three significant digits or all whole ones, never an exponent: ``"3,312"``, ``"41.2"``."""
    if not math.isfinite(value):
        return str(value)
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return _fixed(value, max(0, min(digits, 6)), rounding)


def seconds(value: float, rounding: Rounding = Rounding.NEAREST) -> str:
    """``"0.0312 s"``, ``"41.2 s"``; from two minutes on ``"17:32 min"``, then ``"1:02:03 h"``."""
    if not _MINUTES_FROM <= abs(value) < _LONGEST_CLOCK:
        return f"{quantity(value, rounding)} s"
    hours = abs(value) >= _HOUR
    return f"{clock(rounded(value, 0, rounding), hours=hours)} {'h' if hours else 'min'}"


def seconds_between(low: float, high: float | None, like: float) -> str:
    """An interval of times, with decimals by its width: ``"41.0–42.3"``, ``"17:20–17:44"``.

    It has the unit of `seconds(like)`, beside which it stands, and does not repeat the unit.

    Args:
        low: seconds; rounded down.
        high: seconds; rounded up. None where the interval has no upper end.
        like: seconds.
    """
    decimals = _decimals((like if high is None else high) - low)
    if not _MINUTES_FROM <= abs(like) < _LONGEST_CLOCK:
        return _numbers_between(low, high, decimals)
    hours, decimals = abs(like) >= _HOUR, min(decimals, 1)
    return _outwards(low, high, decimals, lambda end: clock(end, decimals, hours))


def clock(value: float, decimals: int = 0, hours: bool | None = None) -> str:
    """Seconds as minutes and seconds, ``"17:32"``, or with hours, ``"1:02:03"``.

    Args:
        value: seconds.
        decimals: of the seconds.
        hours: whether to show hours; None where there are any.
    """
    ticks = round(abs(value) * 10**decimals)
    minutes, rest = divmod(ticks, 60 * 10**decimals)
    width = 2 if decimals == 0 else 3 + decimals
    text = f"{rest / 10**decimals:0{width}.{decimals}f}"
    if hours or (hours is None and abs(value) >= _HOUR):
        text = f"{minutes // 60}:{minutes % 60:02}:{text}"
    else:
        text = f"{minutes}:{text}"
    return f"-{text}" if value < 0 else text


def percent(fraction: float, rounding: Rounding = Rounding.DOWN) -> str:
    """An accuracy, rounded *down*, so that 99.395 % never shows as 99.40 %: ``"99.46 %"``.

    Only the upper end of an interval is rounded up.
    """
    return f"{_hundredths(fraction, rounding)} %"


def percent_between(low: float, high: float | None) -> str:
    """An interval of accuracies in percent, rounded outwards: ``"99.41–99.50"``."""
    upper = None if high is None else _hundredths(high, Rounding.UP)
    return _between(_hundredths(low, Rounding.DOWN), upper)


def whole_percent_between(low: float, high: float) -> str:
    """An interval of shares in whole percent, rounded outwards: ``"91–104 %"``."""
    return f"{_numbers_between(100 * low, 100 * high, 0)} %"


def target(fraction: float) -> str:
    """A target as it was asked for: ``"99.4 %"``."""
    return f"{100 * fraction:.10g} %"


def rate_between(low: float, high: float | None) -> str:
    """An interval of rates, rounded outwards: ``"3,290–3,330"``."""
    upper = low if high is None else high
    return _numbers_between(low, high, _decimals(upper - low) if abs(upper) < 100 else 0)


def memory(number_of_bytes: float, rounding: Rounding = Rounding.NEAREST) -> str:
    """``"412 MiB"``, ``"1.23 GiB"``."""
    value, units = float(number_of_bytes), ["B", "KiB", "MiB", "GiB", "TiB"]
    while abs(value) >= 1000 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{quantity(value, rounding)} {units[0]}"


def energy(joules: float, rounding: Rounding = Rounding.NEAREST) -> str:
    """``"412 J"``, ``"1.23 kJ"``."""
    value, units = joules, ["J", "kJ", "MJ", "GJ"]
    while abs(value) >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{quantity(value, rounding)} {units[0]}"


def energy_between(low: float, high: float | None, like: float) -> str:
    """An interval of energies in the unit of `energy(like)`, beside which it stands."""
    scale = 1.0
    while abs(like) / scale >= 1000 and scale < 1e9:
        scale *= 1000
    width = ((like if high is None else high) - low) / scale
    return _numbers_between(low / scale, high if high is None else high / scale, _decimals(width))


def _numbers_between(low: float, high: float | None, decimals: int) -> str:
    return _outwards(low, high, decimals, lambda end: f"{end:,.{decimals}f}")


def _outwards(low: float, high: float | None, decimals: int, write: Callable[[float], str]) -> str:
    """An interval whose ends are rounded so that it becomes no narrower."""
    upper = None if high is None else write(rounded(high, decimals, Rounding.UP))
    return _between(write(rounded(low, decimals, Rounding.DOWN)), upper)


def _between(low: str, high: str | None) -> str:
    if high is None:
        return f"from {low}"
    # A dash before a minus sign would be misread.
    return f"{low} to {high}" if "-" in low + high else f"{low}–{high}"


def _decimals(width: float) -> int:
    """The number of decimals with which an interval of this width shows two digits."""
    return max(0, min(1 - math.floor(math.log10(width)), 4)) if width > 0 else 2


def _hundredths(fraction: float, rounding: Rounding) -> str:
    return f"{100 * rounded(fraction, 4, rounding):.2f}"


def _fixed(value: float, decimals: int, rounding: Rounding) -> str:
    if rounding is Rounding.NEAREST:
        return f"{value:,.{decimals}f}"
    return f"{rounded(value, decimals, rounding):,.{decimals}f}"
