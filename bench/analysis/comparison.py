"""The result of comparing the two sides of a case: metrics, differences, intervals, verdicts.

Every difference comes with its interval, and a verdict says what the interval supports.
docs/statistics.md has each rule and its reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from bench.analysis.cases import Case
from bench.stats import summary
from bench.stats.intervals import Estimate

TAIL = 0.025
"""Probability beyond either end of an interval that is shown: 95 % inside, for one comparison."""
GATE_TAIL = 0.05
"""Probability that the gate fires wrongly, over all cases; and that it passes one wrongly."""
SHARE_TAIL = 0.01
"""Probability that the gate fires wrongly on the share of runs that reached the target."""
POWER = 0.8
"""Probability that the advised number of runs shows the difference that is asked for."""


class Metric(StrEnum):
    """What two sides are compared in."""

    TIME_TO_TARGET = "time to target"
    SECONDS_PER_IMAGE = "time an image"
    SAMPLES_TO_TARGET = "images needed"
    SHARE_REACHED = "share reached"
    ACCURACY = "accuracy"
    CONVERGENCE = "convergence"


class Verdict(StrEnum):
    """What an interval supports."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    APART = "disagrees"
    ALIKE = "agrees"
    UNCLEAR = "cannot tell"
    UNREACHED = "not reached"
    ABSENT = "no data"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricComparison:
    """One metric of one case."""

    metric: Metric
    per_success: bool = False
    """Whether the times are the seconds that all runs spent, for each success: of runs that do not
    all reach the target, no median time compares."""
    base: float | None = None
    """Median of the base's runs; of accuracies the mean, as a fraction; the share of runs that
    reached the target; with `per_success` those seconds. None without data."""
    new: float | None = None
    """As `base`, of the new side."""
    difference: Estimate | None = None
    """Ratio new to base, or of accuracies and shares new minus base in percentage points, with the
    interval for the reader: 95 % over all comparisons that are made together. None without data."""
    gate_difference: Estimate | None = None
    """The same difference with the interval that the gate fires by: each end is a one-sided 95 %
    bound over all comparisons that are made together. None where the gate has another rule."""
    pass_difference: Estimate | None = None
    """The same difference with the interval that the gate passes by: each end is a one-sided 95 %
    bound of this comparison alone, because all cases must pass. None as `gate_difference`."""
    verdict: Verdict
    note: str = ""
    """What else the reader must know; may be empty."""
    fewest_runs: int = summary.FEWEST_RUNS
    """Number of runs per side below which `pass_difference` has no interval."""
    fewest_shown: int = summary.FEWEST_RUNS
    """Number of runs per side below which `difference` has no interval."""
    spread: float | None = None
    """Standard deviation of the difference between one run of each side, in logarithms or
    percentage points. None where it is not known."""
    runs_needed: int | None = None
    """Number of runs per side that would show the difference asked for. None where not known."""

    @property
    def heading(self) -> str:
        """What the values are, for a reader."""
        return "seconds a success" if self.per_success else self.metric.value


@dataclass(frozen=True, slots=True)
class Comparison:
    """One case, compared in every metric."""

    case: Case
    paired: bool
    """Whether the sides took turns, so that each run is compared with its neighbour."""
    lines: tuple[MetricComparison, ...]
    """The comparison in each metric."""
    gate_tail: float
    """Probability that one end of the interval of a `gate_difference` is wrong."""

    @property
    def fixed_schedule(self) -> bool:
        """Whether the runs trained to the end of their schedule, whatever they had reached."""
        return not self.case.base[0].protocol.stop_at_target

    def line(self, metric: Metric) -> MetricComparison:
        """The comparison in that metric."""
        return next(line for line in self.lines if line.metric is metric)


def no_data(metric: Metric, reason: str) -> MetricComparison:
    """The comparison in a metric that the runs have no values of."""
    return MetricComparison(metric=metric, verdict=Verdict.ABSENT, note=reason)


def verdict_by_sign(difference: Estimate, no_difference: float) -> Verdict:
    """Worse where the whole interval is above `no_difference`, better where it is below."""
    if difference.low is not None and difference.low > no_difference:
        return Verdict.WORSE
    if difference.high is not None and difference.high < no_difference:
        return Verdict.BETTER
    return Verdict.UNCLEAR


def within_margin(estimate: Estimate, low: float, high: float) -> bool:
    """Whether the whole interval lies between two values."""
    return (
        estimate.low is not None
        and estimate.high is not None
        and low < estimate.low
        and estimate.high < high
    )
