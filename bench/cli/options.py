"""Parse and check option values."""

from __future__ import annotations

import math

from mnist_cnn.accuracy import parse_accuracy as parse_accuracy
from mnist_cnn.errors import UsageError

_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "": 1.0}


def parse_duration(text: str) -> float:
    """Seconds of ``90``, ``90s``, ``10m`` or ``1.5h``.

    Raises:
        UsageError: it is none of these.
    """
    word = text.strip().lower()
    number = word.rstrip("".join(_UNITS))
    unit = word[len(number) :].strip()
    try:
        seconds = float(number) * _UNITS[unit]
    except (KeyError, ValueError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise UsageError(f"--budget takes a time, as 90s, 10m or 1.5h, not {text!r}")
    return seconds


def parse_share(text: str, option: str) -> float:
    """A share of ``5%``, ``5 %`` or ``0.05``.

    Raises:
        UsageError: it is none of these; the message names the option.
    """
    word = text.strip()
    try:
        value = float(word.removesuffix("%")) / (100 if word.endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{option} takes a number, as 5% or 0.05, not {text!r}")
    return value
