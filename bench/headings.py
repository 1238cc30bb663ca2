"""What the name of any row's column says of its values: what they are, in which unit.

A row has `bench.comparison`'s columns and what a report adds to them: summaries of the measured
ones, prices, relative speed. A name is one of these columns, or begins with one's.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.comparison import COLUMNS, Unit

_ADDED: dict[str, tuple[str, Unit]] = {
    "runs": ("runs", Unit.COUNT),
    "runs_reached": ("reached", Unit.COUNT),
    "runs_reached_share": ("reached, share", Unit.FRACTION),
    "price_per_hour": ("price an hour", Unit.RATE),
    "currency": ("currency", Unit.TEXT),
    "cost_to_target": ("cost", Unit.RATE),
    "relative_speed": ("relative speed", Unit.RATE),
    "relative_speed_reason": ("why no relative speed", Unit.TEXT),
}
_KNOWN = {column.name: (column.heading, column.unit) for column in COLUMNS} | _ADDED

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
    *("recipe", "division", "device_name", "processes", "threads", "precision", "kernels", "label"),
    *("runs", "runs_reached", "seed", "status"),
    *("time_to_target_seconds", "time_to_target_seconds_median"),
    *("time_to_target_seconds_low", "time_to_target_seconds_high"),
    *("relative_speed", "relative_speed_low", "relative_speed_high"),
    *("train_seconds", "images_per_second", "images_per_second_median"),
    *("final_accuracy", "final_accuracy_median", "final_accuracy_low", "final_accuracy_high"),
    *("cost_to_target", "cost_to_target_median", "currency"),
)
"""What people are shown of a row, unless they ask for other columns."""

LESSER = frozenset(
    {"division", "processes", "threads", "precision", "kernels", "seed", "train_seconds"}
    | {
        f"{name}_{end}"
        for name in ("time_to_target_seconds", "final_accuracy")
        for end in ("low", "high")
    }
)
"""Of these, what goes first where there is no room for all."""


def shown(columns: Sequence[str]) -> list[str]:
    """Those of the columns that people are shown, the most important first."""
    return [name for name in SHOWN if name in columns]


def unit_of(name: str) -> Unit:
    """How the values of a column are to be read."""
    return _KNOWN[_begins_with(name)][1]


def heading_of(name: str) -> str:
    """Of a column, for people: ``"to target (median)"``."""
    known = _begins_with(name)
    heading, part = _KNOWN[known][0], name.removeprefix(known).strip("_").replace("_", " ")
    return f"{heading} ({part})" if part else heading


def is_text(name: str) -> bool:
    """Whether a column's values are text, rather than numbers."""
    return unit_of(name) is Unit.TEXT


def is_whole(name: str) -> bool:
    """Whether its numbers are whole ones: counted, not measured and not summed up."""
    return unit_of(name) in (Unit.COUNT, Unit.BYTES) and name in _KNOWN


def meaning_of(name: str) -> str:
    """What its values are, in words: ``"seconds"``, ``"a fraction, 0 to 1"``."""
    return _MEANINGS[unit_of(name)]


def _begins_with(name: str) -> str:
    """The longest known name that is this one or its beginning."""
    known = name
    while known not in _KNOWN:
        known, underscore, _ = known.rpartition("_")
        if not underscore:
            raise KeyError(name)
    return known
