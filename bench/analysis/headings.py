"""What the name of any column means, derived ones included: its heading, its unit, its type.

A derived column's name begins with the name of the column that it is derived from:
``time_to_target_seconds_median_low`` is seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.columns import COLUMNS
from bench.analysis.units import Unit
from bench.text import Rounding

_ADDED: dict[str, tuple[str, Unit]] = {
    "runs": ("runs", Unit.COUNT),
    "runs_reached": ("reached", Unit.COUNT),
    "runs_reached_share": ("reached, share", Unit.FRACTION),
    "time_to_target_seconds_expected": ("seconds a success", Unit.SECONDS),
    "price_per_hour": ("price an hour", Unit.RATE),
    "currency": ("currency", Unit.TEXT),
    "cost_to_target": ("cost", Unit.RATE),
    "cost_to_target_expected": ("cost a success", Unit.RATE),
    "relative_speed": ("relative speed", Unit.RATE),
    "relative_speed_reason": ("why no relative speed", Unit.TEXT),
    "relative_speed_kernels": ("kernels differ", Unit.TEXT),
}
_KNOWN = {column.name: (column.heading, column.unit) for column in COLUMNS} | _ADDED
"""Heading and unit by column name. A longer name takes both from its longest known beginning."""

_MEANINGS = {
    Unit.COUNT: "a whole number",
    Unit.FRACTION: "a fraction, 0 to 1",
    Unit.SECONDS: "seconds",
    Unit.RATE: "a number (images a second, money, a ratio)",
    Unit.BYTES: "bytes",
    Unit.JOULES: "joules",
    Unit.TEXT: "text",
}

SHOWN = (
    *("recipe", "division", "device_name", "machine", "processes", "threads", "precision"),
    *("kernels", "label"),
    *("runs", "runs_reached", "seed", "status"),
    *("time_to_target_seconds", "time_to_target_seconds_median"),
    *("time_to_target_seconds_median_low", "time_to_target_seconds_median_high"),
    "time_to_target_seconds_expected",
    *("relative_speed", "relative_speed_low", "relative_speed_high"),
    *("train_seconds", "images_per_second", "images_per_second_median"),
    *("final_accuracy", "final_accuracy_median"),
    *("final_accuracy_median_low", "final_accuracy_median_high"),
    *("cost_to_target", "cost_to_target_median", "currency"),
)
"""Columns that tables for people show, unless other columns are asked for."""

LESSER = frozenset(
    {"division", "machine", "processes", "threads", "precision", "kernels", "seed", "train_seconds"}
    | {
        f"{name}_median_{end}"
        for name in ("time_to_target_seconds", "final_accuracy")
        for end in ("low", "high")
    }
)
"""Columns of `SHOWN` that a table leaves out first where it has no room for all."""


def readable_names(columns: Sequence[str]) -> list[str]:
    """The columns that tables for people show, the most important first."""
    return [name for name in SHOWN if name in columns]


def unit_of(name: str) -> Unit:
    """The unit of a column's values."""
    return _KNOWN[_known_prefix(name)][1]


def heading_of(name: str) -> str:
    """A column's heading for people: ``"to target (median)"``."""
    known = _known_prefix(name)
    heading, ending = _KNOWN[known][0], name.removeprefix(known).strip("_").replace("_", " ")
    return f"{heading} ({ending})" if ending else heading


def rounding_of(name: str) -> Rounding:
    """Which way a column's values are rounded for people: the ends of an interval outwards."""
    if name.endswith("_low"):
        return Rounding.DOWN
    return Rounding.UP if name.endswith("_high") else Rounding.NEAREST


def is_text(name: str) -> bool:
    """Whether a column's values are text, rather than numbers."""
    return unit_of(name) is Unit.TEXT


def is_whole(name: str) -> bool:
    """Whether a column's numbers are whole: counted, neither measured nor summarized."""
    return unit_of(name) in (Unit.COUNT, Unit.BYTES) and name in _KNOWN


def meaning_of(name: str) -> str:
    """What a column's values are, in words: ``"seconds"``, ``"a fraction, 0 to 1"``."""
    return _MEANINGS[unit_of(name)]


def _known_prefix(name: str) -> str:
    """The longest known name that equals this name or begins it."""
    known = name
    while known not in _KNOWN:
        known, underscore, _ = known.rpartition("_")
        if not underscore:
            raise KeyError(name)
    return known
