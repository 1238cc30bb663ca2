"""Numbers and text as people read them: in tables, progress lines and messages."""

from __future__ import annotations

import math
import re

MISSING = "–"
"""Shown where there is no value: a missed target, an unknown amount of memory."""

_MINUTES_FROM = 120.0
"""Seconds from which a time reads better as minutes and seconds."""
_HOUR = 3600.0
_LONGEST_CLOCK = 100 * _HOUR
_ESCAPES = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # operating system commands: titles, links, clipboard
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # control sequences: colours, cursor, screen
    r"|\x1b[ -/]*[0-~]?"  # every other escape
)


def printable(text: str) -> str:
    """The text on one line, with nothing in it that a terminal would obey.

    Escape sequences, control characters and invisible ones (text direction, zero width) are
    taken out; line breaks, tabs and odd spaces become a space each.
    """
    if text.isprintable():  # as nearly all of it is
        return text.strip()
    visible = (
        letter if letter.isprintable() else " " if letter.isspace() else ""
        for letter in _ESCAPES.sub("", text)
    )
    return "".join(visible).strip()


def encodable(text: str) -> str:
    """The text with a mark in place of each lone surrogate, which UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode("utf-8")


def count_of(number: int, noun: str) -> str:
    """``"1 run"``, ``"3 runs"``, ``"2 processes"``."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"


def quantity(value: float) -> str:
    """Three significant digits or all whole ones, never an exponent: ``"3,312"``, ``"41.2"``."""
    if not math.isfinite(value):
        return str(value)
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{max(0, min(digits, 6))}f}"


def seconds(value: float) -> str:
    """``"0.0312 s"``, ``"41.2 s"``; from two minutes on ``"17:32 min"``, then ``"1:02:03 h"``."""
    if not _MINUTES_FROM <= abs(value) < _LONGEST_CLOCK:
        return f"{quantity(value)} s"
    return f"{clock(value)} {'h' if abs(value) >= _HOUR else 'min'}"


def seconds_between(low: float, high: float, like: float) -> str:
    """An interval of times, with decimals by its width: ``"41.0–42.3"``, ``"17:20–17:44"``.

    It has the unit of `seconds(like)`, beside which it stands, and does not repeat the unit.
    """
    decimals = _decimals(high - low)
    if not _MINUTES_FROM <= abs(like) < _LONGEST_CLOCK:
        return _between(f"{low:,.{decimals}f}", f"{high:,.{decimals}f}")
    hours = abs(like) >= _HOUR
    return _between(*(clock(end, min(decimals, 1), hours) for end in (low, high)))


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


def percent(fraction: float) -> str:
    """An accuracy, rounded *down*, so that 99.395 % never shows as 99.40 %: ``"99.46 %"``."""
    return f"{_hundredths(fraction)} %"


def percent_between(low: float, high: float) -> str:
    """An interval of accuracies in percent, both ends rounded down: ``"99.41–99.50"``."""
    return _between(_hundredths(low), _hundredths(high))


def target(fraction: float) -> str:
    """A target as it was asked for: ``"99.4 %"``."""
    return f"{100 * fraction:.10g} %"


def rate_between(low: float, high: float) -> str:
    """An interval of rates: ``"3,290–3,330"``."""
    decimals = _decimals(high - low) if abs(high) < 100 else 0
    return _between(f"{low:,.{decimals}f}", f"{high:,.{decimals}f}")


def memory(number_of_bytes: float) -> str:
    """``"412 MiB"``, ``"1.23 GiB"``."""
    value, units = float(number_of_bytes), ["B", "KiB", "MiB", "GiB", "TiB"]
    while abs(value) >= 1000 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{quantity(value)} {units[0]}"


def energy(joules: float) -> str:
    """``"412 J"``, ``"1.23 kJ"``."""
    value, units = joules, ["J", "kJ", "MJ", "GJ"]
    while abs(value) >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{quantity(value)} {units[0]}"


def energy_between(low: float, high: float, like: float) -> str:
    """An interval of energies in the unit of `energy(like)`, beside which it stands."""
    scale = 1.0
    while abs(like) / scale >= 1000 and scale < 1e9:
        scale *= 1000
    decimals = _decimals((high - low) / scale)
    return _between(f"{low / scale:,.{decimals}f}", f"{high / scale:,.{decimals}f}")


def _between(low: str, high: str) -> str:
    # A dash before a minus sign would be misread.
    return f"{low} to {high}" if "-" in low + high else f"{low}–{high}"


def _decimals(width: float) -> int:
    """The number of decimals with which an interval of this width shows two digits."""
    return max(0, min(1 - math.floor(math.log10(width)), 4)) if width > 0 else 2


def _hundredths(fraction: float) -> str:
    # 0.9946 * 10,000 is a hair below 9,946 as floats; no accuracy is that close to the next.
    return f"{math.floor(fraction * 10_000 + 1e-6) / 100:.2f}"
