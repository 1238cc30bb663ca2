"""Compares the two sides of a case: how much faster, how much more accurate, does it learn alike.

Each metric alone is here too, for callers that need no other: some take a while.
"""

from __future__ import annotations

from bench.analysis.cases import Case
from bench.analysis.compared_sides import ComparedSides
from bench.analysis.comparison import Comparison, MetricComparison
from bench.analysis.learning_comparison import compare_accuracy, compare_convergence
from bench.analysis.share_comparison import compare_share_reached
from bench.analysis.speed_comparison import (
    compare_samples_to_target,
    compare_seconds_per_image,
    compare_time_to_target,
)

DIFFERENCE_SOUGHT = 0.05
"""Relative difference of times that runs should be able to show, unless the caller names one."""


def compare_case(
    case: Case, comparisons: int, difference_sought: float = DIFFERENCE_SOUGHT
) -> Comparison:
    """Compare the two sides of a case in every metric.

    Args:
        case: with any number of completed runs.
        comparisons: number of cases that are compared together: the chance of error is shared
            among them (Bonferroni's correction, of every interval).
        difference_sought: relative difference of times that the runs should be able to show.
    """
    sides = ComparedSides.of(case, comparisons, difference_sought)
    lines = (
        compare_time_to_target(sides),
        compare_seconds_per_image(sides),
        compare_samples_to_target(sides),
        compare_share_reached(sides),
        compare_accuracy(sides),
        compare_convergence(sides),
    )
    return Comparison(case, sides.paired, lines, sides.gate_tail)


def time_to_target(case: Case, comparisons: int) -> MetricComparison:
    """The time to target of `compare_case` alone."""
    return compare_time_to_target(ComparedSides.of(case, comparisons, DIFFERENCE_SOUGHT))


def seconds_per_image(
    case: Case, comparisons: int, difference_sought: float = DIFFERENCE_SOUGHT
) -> MetricComparison:
    """The training time per image of `compare_case` alone."""
    return compare_seconds_per_image(ComparedSides.of(case, comparisons, difference_sought))
