"""Whose code computed a run's steps: torch's operators, or kernels written for some devices.

Every device has torch's operators, so their times compare devices. Times of other kernels also say
for which device somebody wrote code.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.columns import Row
from bench.records.schema import RunRecord
from bench.text import DIFFERENT

TORCH = "torch"
_TORCH_KERNELS = (TORCH, "inductor")
"""Values of `Setup.kernels` that are torch's: its operators, and the same fused by its compiler."""
KERNELS_COLUMN = "kernels"
"""Column of rows whose values are marked."""
AGAINST_COLUMN = "relative_speed_kernels"
"""Column of rows that are compared with a baseline: not None where other kernels computed it."""


def legend(other: str = "the first row") -> str:
    """What the mark says.

    Args:
        other: what the marked rows are read against.
    """
    return (
        f"{DIFFERENT} other kernels than {other}'s: a difference of times contains the code's, not "
        "the device's alone."
    )


def code_of(record: RunRecord) -> str:
    """The code that computed a run's steps: ``"torch"``, or the name of the kernels."""
    return code_name(record.setup.computed_by)


def code_name(computed_by: str) -> str:
    """The code of `Setup.computed_by`; whether steps were replayed from graphs does not matter."""
    kernels = computed_by.partition(" ")[0]
    return TORCH if kernels in _TORCH_KERNELS else kernels


def uses_torch(record: RunRecord) -> bool:
    """Whether torch's operators computed a run's steps."""
    return code_of(record) == TORCH


def codes_differ(base: Sequence[RunRecord], new: Sequence[RunRecord]) -> bool:
    """Whether the two sides' steps were computed by different code."""
    return {*map(code_of, base)} != {*map(code_of, new)}


def mark_of(record: RunRecord, first: RunRecord) -> str:
    """The mark beside a row whose code is not that of the table's first row; empty for equal code.

    Args:
        record: a run of the row.
        first: a run of the first row.
    """
    return f" {DIFFERENT}" if codes_differ([first], [record]) else ""


def row_marks(rows: Sequence[Row]) -> list[str]:
    """`mark_of` for rows of a table, against the baseline where there is one, else the first."""
    if any(AGAINST_COLUMN in row for row in rows):
        differ = [row[AGAINST_COLUMN] is not None for row in rows]
    else:
        names = [code_name(str(row[KERNELS_COLUMN])) for row in rows]
        differ = [name != names[0] for name in names]
    return [f" {DIFFERENT}" if differs else "" for differs in differ]


def row_legend(rows: Sequence[Row]) -> str:
    """What the marks of rows say."""
    return legend("the baseline") if AGAINST_COLUMN in rows[0] else legend()
