"""Parse and check option values."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from bench.text import printable
from mnist_cnn.accuracy import parse_accuracy as parse_accuracy
from mnist_cnn.errors import UsageError

_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "": 1.0}


def parse_duration(text: str) -> float:
    """Seconds from ``90``, ``90s``, ``10m`` or ``1.5h``, the value of --budget.

    Raises:
        UsageError: the text has another form.
    """
    word = text.strip().lower()
    number = word.rstrip("".join(_UNITS))
    unit = word[len(number) :].strip()
    try:
        seconds = float(number) * _UNITS[unit]
    except (KeyError, ValueError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise UsageError(f"--budget takes a time, such as 90s, 10m or 1.5h, not {text!r}")
    return seconds


def parse_share(text: str, option: str) -> float:
    """The fraction that ``5%``, ``5 %`` or ``0.05`` stands for.

    Raises:
        UsageError: the text has another form; the message names the option.
    """
    word = text.strip()
    try:
        value = float(word.removesuffix("%")) / (100 if word.endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{option} takes a number, such as 5% or 0.05, not {text!r}")
    return value


def parse_points(text: str, option: str) -> float:
    """Percentage points from 0 to below 100, such as ``0.05``.

    Raises:
        UsageError: the text is no such number; the message names the option.
    """
    try:
        points = float(text)
    except ValueError:
        points = math.nan
    if not 0 <= points < 100:
        raise UsageError(f"{option} takes percentage points, such as 0.05, not {printable(text)!r}")
    return points


def reject_reserved(words: Iterable[str], reserved: Collection[str], command: str) -> None:
    """Refuse options of `run` that a command sets itself.

    Raises:
        UsageError: one of the words is such an option.
    """
    for word in words:
        option = word.split("=")[0]
        if option in reserved:
            raise UsageError(f"{command} sets {option} itself: leave it out")
