"""The runs of a case's two sides, and the intervals of their differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.analysis.cases import Case, interleaved
from bench.analysis.comparison import GATE_TAIL, POWER, TAIL
from bench.records.schema import RunRecord
from bench.stats import intervals, sample_size, summary
from bench.stats.intervals import Estimate


@dataclass(frozen=True, slots=True)
class ComparedSides:
    """Two sides and how they are compared.

    The chance of error is shared among the cases that are compared together (Bonferroni's
    correction, of every interval).
    """

    base: Sequence[RunRecord]
    new: Sequence[RunRecord]
    paired: bool
    """Whether the sides took turns, so that each run is compared with its neighbour."""
    comparisons: int
    """Number of cases that are compared together."""
    difference_sought: float
    """Relative difference of times that the runs should be able to show: 0.05 for 5 %."""

    @classmethod
    def of(cls, case: Case, comparisons: int, difference_sought: float) -> ComparedSides:
        """The sides of a case."""
        paired = interleaved(case.base, case.new)
        return cls(case.base, case.new, paired, comparisons, difference_sought)

    @property
    def tail(self) -> float:
        """Probability beyond either end of an interval that is shown."""
        return TAIL / self.comparisons

    @property
    def gate_tail(self) -> float:
        """Probability beyond either end of an interval that the gate judges by."""
        return GATE_TAIL / self.comparisons

    @property
    def fewest_per_side(self) -> int:
        """Number of runs of the smaller side."""
        return min(len(self.base), len(self.new))

    @property
    def seeds_are_paired(self) -> bool:
        """Whether both runs of each pair started from the same weights."""
        return self.paired and all(
            base.seed == new.seed for base, new in zip(self.base, self.new, strict=True)
        )

    def values(
        self, value: Callable[[RunRecord], float | None]
    ) -> tuple[list[float], list[float]] | None:
        """Each side's values, run by run; None where a run has none."""
        base, new = ([value(record) for record in side] for side in (self.base, self.new))
        known = [_finite(base), _finite(new)]
        if not all(known) or len(known[0]) < len(base) or len(known[1]) < len(new):
            return None
        return known[0], known[1]

    def location_shift(self, base: Sequence[float], new: Sequence[float], tail: float) -> Estimate:
        """How much larger `new` is than `base`, by ranks."""
        if self.paired:
            differences = [after - before for before, after in zip(base, new, strict=True)]
            return intervals.paired_location_shift(differences, tail)
        return intervals.location_shift(base, new, tail)

    def mean_difference(self, base: Sequence[float], new: Sequence[float], tail: float) -> Estimate:
        """Mean of `new` minus mean of `base`; by pairs where `seeds_are_paired`."""
        if min(len(base), len(new)) < summary.FEWEST_RUNS:
            return Estimate(mean(new) - mean(base), None, None)
        if self.seeds_are_paired:
            differences = [after - before for before, after in zip(base, new, strict=True)]
            return intervals.paired_mean_difference(differences, tail)
        return intervals.mean_difference(base, new, tail)


def runs_needed(spread: float | None, difference: float, tail: float) -> int | None:
    """Runs per side that show a difference with probability `POWER`; None without a spread."""
    return None if spread is None else sample_size.runs_needed(spread, difference, tail, POWER)


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean, summed exactly."""
    return math.fsum(values) / len(values)


def _finite(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]
