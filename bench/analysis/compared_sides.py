"""The runs of a case's two sides, and the intervals of their differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bench.analysis.cases import Case, interleaved
from bench.analysis.comparison import GATE_TAIL, POWER, TAIL
from bench.analysis.repeats import has_repeated_seeds, one_per_seed
from bench.records.schema import RunRecord
from bench.stats import intervals, sample_size, summary
from bench.stats.intervals import Estimate
from bench.stats.shares import go_together
from bench.stats.sums import exact_sum


@dataclass(frozen=True, slots=True)
class ComparedSides:
    """Two sides and how they are compared.

    The chance of error is shared among the cases that are compared together (Bonferroni's
    correction, of every interval but the gate's for passing).
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
        """Probability beyond either end of an interval that the gate fires by."""
        return GATE_TAIL / self.comparisons

    @property
    def pass_tail(self) -> float:
        """Probability beyond either end of an interval that the gate passes by.

        It is not shared among the cases: a gate passes only if every case does, so it is wrong at
        most as often as one case is (the intersection-union test, Berger 1982).
        """
        return GATE_TAIL

    @property
    def fewest_per_side(self) -> int:
        """Number of runs of the smaller side."""
        return min(len(self.base), len(self.new))

    @property
    def same_seeds(self) -> bool:
        """Whether both sides ran the same seeds, each once, in any order."""
        base, new = (sorted(record.seed for record in side) for side in (self.base, self.new))
        return base == new and len(set(base)) == len(base)

    def once_per_seed(self) -> ComparedSides:
        """The sides with the first run of each seed only: for what the seed decides."""
        if not has_repeated_seeds(self.base) and not has_repeated_seeds(self.new):
            return self
        base, new = one_per_seed(self.base), one_per_seed(self.new)
        return replace(self, base=base, new=new, paired=interleaved(base, new))

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
        """Mean of `new` minus mean of `base`; by `seed_differences` where there are any."""
        if min(len(base), len(new)) < summary.FEWEST_RUNS:
            return Estimate(mean(new) - mean(base), None, None)
        if differences := self.seed_differences(base, new):
            return intervals.paired_mean_difference(differences, tail)
        return intervals.mean_difference(base, new, tail)

    def seed_differences(self, base: Sequence[float], new: Sequence[float]) -> list[float]:
        """New minus base of each seed; empty where seeds differ or their values are unrelated.

        With other rounding the same seed is another training: in the committed records such
        trainings do not go together, and pairs would only cost degrees of freedom.
        """
        if not self.same_seeds:
            return []
        before, after = _by_seed(self.base, base), _by_seed(self.new, new)
        if not go_together(before, after):
            return []
        return [second - first for first, second in zip(before, after, strict=True)]


def runs_needed(spread: float | None, difference: float, tail: float) -> int | None:
    """Runs per side that show a difference with probability `POWER`; None without a spread."""
    return None if spread is None else sample_size.runs_needed(spread, difference, tail, POWER)


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean, summed exactly."""
    return exact_sum(values) / len(values)


def _by_seed(records: Sequence[RunRecord], values: Sequence[float]) -> list[float]:
    """The values of the records, in the order of their seeds."""
    seeds = [record.seed for record in records]
    return [value for _, value in sorted(zip(seeds, values, strict=True))]


def _finite(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]
