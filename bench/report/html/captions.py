"""Texts that several figures share: names, targets, and what a figure leaves out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench import text
from bench.analysis.labels import machine_label
from bench.records.machine_key import MachineKey
from bench.report.html.series import SetupSeries

MOST_ROWS = 12
"""Number of set-ups that a figure with one row per set-up has room for."""
LONGEST_NAME = 56
"""Number of characters of a name in a figure."""


def target_name(all_series: Sequence[SetupSeries]) -> str:
    """``"99.4 %"`` when all set-ups have that target; otherwise ``"target"``."""
    targets = targets_of(all_series)
    return text.target(targets[0]) if len(targets) == 1 else "target"


def targets_of(all_series: Sequence[SetupSeries]) -> list[float]:
    """The different target accuracies, as fractions, the lowest first."""
    return sorted({series.benchmark.target_accuracy for series in all_series})


def shown_of(known: Sequence[SetupSeries]) -> list[SetupSeries]:
    """The set-ups that a figure with rows shows, in the same order.

    Args:
        known: all that have data, the first before the others.

    Returns:
        All, if they are `MOST_ROWS` at most. Else the first of each machine, as far as there are
        rows: who looks for a machine finds it. Then the first ones of the rest.
    """
    if len(known) <= MOST_ROWS:
        return list(known)
    firsts: dict[str, int] = {}
    for place, series in enumerate(known):
        record = series.first_record
        key = MachineKey.of(record.environment)
        firsts.setdefault(machine_label(record.setup.device_name, key), place)
    rest = (place for place in range(len(known)) if place not in firsts.values())
    kept = sorted([*firsts.values(), *rest][:MOST_ROWS])
    return [known[place] for place in kept]


def left_out_note(count: int, which: str) -> str:
    """The sentence about set-ups that a figure with rows leaves out; empty when it shows all.

    Args:
        count: number of set-ups that have data.
        which: what comes first, such as ``"fastest"``.
    """
    if count <= MOST_ROWS:
        return ""
    return (
        f" {MOST_ROWS} of {count} set-ups: first the {which} of each machine, then others; "
        "the table has all."
    )


def describe(all_series: Sequence[SetupSeries], value: Callable[[SetupSeries], str]) -> str:
    """A value for each set-up, as a description of a figure."""
    parts = [f"{series.number} {series.full_name}: {value(series)}" for series in all_series]
    return "; ".join(parts) + "."
