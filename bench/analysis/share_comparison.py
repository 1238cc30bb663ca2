"""Compares two sides in the share of runs that reached the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.analysis.compared_sides import ComparedSides
from bench.analysis.comparison import Metric, MetricComparison, Verdict
from bench.analysis.learning_comparison import identical_trainings
from bench.analysis.metrics import reached_epoch
from bench.analysis.repeats import one_per_seed
from bench.records.schema import RunRecord
from bench.stats.intervals import Estimate, fisher_exact
from bench.stats.shares import share_difference


@dataclass(frozen=True, slots=True, kw_only=True)
class ReachedCounts:
    """How many runs of each side reached the target; runs that repeat a seed count once."""

    base: int
    """Runs of the base that reached it."""
    base_runs: int
    """All runs of the base."""
    new: int
    """Runs of the new side that reached it."""
    new_runs: int
    """All runs of the new side."""
    same_outcomes: bool
    """Whether both sides ran the same seeds, and each seed reached or missed on both."""

    @classmethod
    def of(cls, base: Sequence[RunRecord], new: Sequence[RunRecord]) -> ReachedCounts:
        """The counts of two sides, of which each has a completed run."""
        before, after = (
            {run.seed: reached_epoch(run) is not None for run in one_per_seed(side)}
            for side in (base, new)
        )
        return cls(
            base=sum(before.values()),
            base_runs=len(before),
            new=sum(after.values()),
            new_runs=len(after),
            same_outcomes=before == after,
        )

    @property
    def new_missed(self) -> int:
        """Number of runs of the new side that missed."""
        return self.new_runs - self.new

    @property
    def worse_by_chance(self) -> float:
        """Probability of so few successes on the new side if both have the same chance."""
        return fisher_exact(self.base, self.base_runs, self.new, self.new_runs)

    @property
    def better_by_chance(self) -> float:
        """Probability of so few successes on the base's side if both have the same chance."""
        return fisher_exact(self.new, self.new_runs, self.base, self.base_runs)

    def __str__(self) -> str:
        counts = f"{self.base} of {self.base_runs} and {self.new} of {self.new_runs} runs"
        return f"{counts}, the same seeds" if self.same_outcomes else counts


def compare_share_reached(sides: ComparedSides) -> MetricComparison:
    """The share of runs that reached the target: Fisher's exact test; equal for equal trainings.

    Where every seed had the same outcome but trained otherwise, chance may have made it so.
    """
    metric = Metric.SHARE_REACHED
    counts = ReachedCounts.of(sides.base, sides.new)
    if not counts.base_runs or not counts.new_runs:
        return MetricComparison(metric=metric, verdict=Verdict.ABSENT, note="no completed run")
    once = sides.once_per_seed()
    identical = counts.same_outcomes and bool(identical_trainings(once.base, once.new))
    difference = share_difference(
        counts.base, counts.base_runs, counts.new, counts.new_runs, sides.tail
    )
    return MetricComparison(
        metric=metric,
        base=counts.base / counts.base_runs,
        new=counts.new / counts.new_runs,
        difference=Estimate(0.0, 0.0, 0.0) if identical else _in_points(difference),
        verdict=_verdict(counts, sides.tail, identical=identical),
        note=str(counts),
    )


def _verdict(counts: ReachedCounts, tail: float, *, identical: bool) -> Verdict:
    if not counts.base and not counts.new:
        return Verdict.UNREACHED
    if identical:
        return Verdict.EQUIVALENT
    if counts.worse_by_chance <= tail:
        return Verdict.WORSE
    return Verdict.BETTER if counts.better_by_chance <= tail else Verdict.UNCLEAR


def _in_points(share: Estimate) -> Estimate:
    """In percentage points."""
    low, high = (None if end is None else 100 * end for end in (share.low, share.high))
    return Estimate(100 * share.value, low, high)
