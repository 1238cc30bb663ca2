"""One case, base against new: how much faster, how much more accurate, and does it learn alike.

Every difference comes with its interval, and a verdict says what the interval allows to be said.
docs/statistics.md has each rule and its reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from bench.analysis import metrics
from bench.analysis.cases import Case, interleaved
from bench.analysis.metrics import censored_time
from bench.records.schema import RunRecord
from bench.stats import intervals, summary, survival
from bench.stats.intervals import Estimate
from bench.stats.rcp import epochs_allowed, olympic_mean
from bench.stats.survival import CensoredTime

TAIL = 0.025
"""Probability beyond either end of an interval that is shown: 95 % between, for one comparison."""
GATE_TAIL = 0.05
"""Probability with which the gate fires, or passes, wrongly, for one comparison."""
POWER = 0.8
"""Probability with which the number of runs that is advised sees the difference that is wanted."""
ACCURACY_MARGIN = 0.05
"""Percentage points within which two accuracies are as good as equal."""
IMAGE = 0.01
"""Percentage points that one of 10,000 test images is."""
LOSS_MARGIN = 0.10
"""Share by which mean training losses may differ where two implementations learn alike."""


class Metric(StrEnum):
    """What two sides are compared in."""

    TIME_TO_TARGET = "time to target"
    SECONDS_AN_IMAGE = "time an image"
    SAMPLES_TO_TARGET = "images needed"
    ACCURACY = "accuracy"
    CONVERGENCE = "convergence"


class Verdict(StrEnum):
    """What may be said of a difference."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    APART = "disagrees"
    ALIKE = "agrees"
    UNCLEAR = "cannot tell"
    UNREACHED = "not reached"
    ABSENT = "no data"


@dataclass(frozen=True, slots=True)
class MetricComparison:
    """One metric of one case."""

    metric: Metric
    base: float | None
    """The median of the base's runs; of accuracies the mean, as a fraction."""
    new: float | None
    difference: Estimate | None
    """New over base; of accuracies new less base, in percentage points. For the reader: 95 % over
    all comparisons that are made together."""
    bound: Estimate | None
    """The same with the ends that the gate judges by: 95 % to either side."""
    verdict: Verdict
    note: str
    """What else is to be known of it, or nothing."""
    fewest: int = summary.FEWEST_RUNS
    """Runs a side below which there is no `bound`."""
    spread: float | None = None
    """Standard deviation of the difference of one run a side, in logarithms or points."""
    runs_needed: int | None = None
    """A side, to tell the difference that is wanted from none."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One case, compared."""

    case: Case
    paired: bool
    """Whether the sides took turns, so that each run is compared with its neighbour."""
    lines: tuple[MetricComparison, ...]
    gate_tail: float
    """Probability with which each end of a `bound` is wrong."""

    def line(self, metric: Metric) -> MetricComparison:
        """The line of that metric."""
        return next(line for line in self.lines if line.metric is metric)


def compare_case(case: Case, comparisons: int, wanted: float = 0.05) -> Comparison:
    """Compare the two sides of a case.

    Args:
        case: with any number of completed runs.
        comparisons: how many cases are compared together: the chance to err is shared among them
            (Bonferroni's correction, of every interval).
        wanted: the relative difference of times that one would like to be able to see.
    """
    paired = interleaved(case.base, case.new)
    measure = _CaseComparer(case.base, case.new, paired, comparisons, wanted)
    lines = (
        measure.time_to_target(),
        measure.ratio(Metric.SECONDS_AN_IMAGE, _seconds_an_image),
        measure.samples_to_target(),
        measure.accuracy(),
        measure.convergence(),
    )
    return Comparison(case, paired, lines, GATE_TAIL / comparisons)


def time_to_target(case: Case, comparisons: int) -> MetricComparison:
    """The first line of `compare_case`, where the others are not wanted: they take a while."""
    paired = interleaved(case.base, case.new)
    return _CaseComparer(case.base, case.new, paired, comparisons, wanted=0.05).time_to_target()


def seconds_an_image(case: Case, comparisons: int, wanted: float = 0.05) -> MetricComparison:
    """The second line of `compare_case`, likewise."""
    paired = interleaved(case.base, case.new)
    measure = _CaseComparer(case.base, case.new, paired, comparisons, wanted)
    return measure.ratio(Metric.SECONDS_AN_IMAGE, _seconds_an_image)


@dataclass(frozen=True, slots=True)
class _CaseComparer:
    base: Sequence[RunRecord]
    new: Sequence[RunRecord]
    paired: bool
    comparisons: int
    wanted: float

    def ratio(self, metric: Metric, value: Callable[[RunRecord], float | None]) -> MetricComparison:
        """New over base of something positive that every run should have."""
        base, new = _all(self.base, value), _all(self.new, value)
        if base is None or new is None or min(*base, *new) <= 0:
            return _absent(metric, "a run has none")
        logs = [math.log(one) for one in base], [math.log(one) for one in new]
        shown, bound = (
            self._shift(*logs, tail / self.comparisons).as_ratio() for tail in (TAIL, GATE_TAIL)
        )
        tail = TAIL / self.comparisons
        spread = intervals.ratio_spread(*logs, self.paired)
        needed = _runs_needed(spread, math.log1p(self.wanted), tail)
        if needed is not None:
            needed = max(needed, intervals.fewest_runs(tail, self.paired))
        verdict = _sign_verdict(shown, 1.0)
        if verdict is Verdict.UNCLEAR and within_margin(
            bound, 1 / (1 + self.wanted), 1 + self.wanted
        ):
            verdict = Verdict.EQUIVALENT
        fewest = intervals.fewest_runs(GATE_TAIL / self.comparisons, self.paired)
        ends = _median(base), _median(new)
        return MetricComparison(metric, *ends, shown, bound, verdict, "", fewest, spread, needed)

    def _shift(self, base: Sequence[float], new: Sequence[float], tail: float) -> Estimate:
        if self.paired:
            return intervals.paired_location_shift(
                [b - a for a, b in zip(base, new, strict=True)], tail
            )
        return intervals.location_shift(base, new, tail)

    def _mean(self, base: Sequence[float], new: Sequence[float], tail: float) -> Estimate:
        """By pairs where both of a pair started from the same weights."""
        if min(len(base), len(new)) < summary.FEWEST_RUNS:
            return Estimate(_mean(new) - _mean(base), None, None)
        if self._seeds_are_paired:
            differences = [b - a for a, b in zip(base, new, strict=True)]
            return intervals.paired_mean_difference(differences, tail)
        return intervals.mean_difference(base, new, tail)

    @property
    def _seeds_are_paired(self) -> bool:
        return self.paired and all(
            one.seed == other.seed for one, other in zip(self.base, self.new, strict=True)
        )

    def time_to_target(self) -> MetricComparison:
        """Of all runs where all reached it; otherwise what a success costs, misses included."""
        metric = Metric.TIME_TO_TARGET
        if _all(self.base, metrics.time_to_target_seconds) and _all(
            self.new, metrics.time_to_target_seconds
        ):
            return self.ratio(metric, metrics.time_to_target_seconds)
        base, new = (
            [censored_time(run) for run in self.base],
            [censored_time(run) for run in self.new],
        )
        if min(len(base), len(new)) < summary.FEWEST_RUNS:
            return _absent(metric, "fewer than 3 completed runs, and not all reached it")
        shown, bound = (
            survival.expected_time_ratio(base, new, tail / self.comparisons)
            for tail in (TAIL, GATE_TAIL)
        )
        counts = [f"{sum(t.reached for t in side)}/{len(side)}" for side in (base, new)]
        note = f"reached by {counts[0]} and {counts[1]}: seconds spent for each success"
        if shown is None or bound is None:
            return MetricComparison(
                metric, None, None, None, None, self._share_reached(base, new), note
            )
        ends = survival.expected_time(base), survival.expected_time(new)
        fewest = survival.FEWEST_FOR_BOOTSTRAP
        return MetricComparison(
            metric, *ends, shown, bound, _sign_verdict(shown, 1.0), note, fewest
        )

    def _share_reached(self, base: Sequence[CensoredTime], new: Sequence[CensoredTime]) -> Verdict:
        """Where one side never reached it: whether that is shown to be no chance."""
        counts = [(sum(t.reached for t in side), len(side)) for side in (base, new)]
        if not counts[0][0] and not counts[1][0]:
            return Verdict.UNREACHED
        tail = TAIL / self.comparisons
        if intervals.fisher_exact(*counts[0], *counts[1]) <= tail:
            return Verdict.WORSE
        fewer_before = intervals.fisher_exact(*counts[1], *counts[0])
        return Verdict.BETTER if fewer_before <= tail else Verdict.UNCLEAR

    def samples_to_target(self) -> MetricComparison:
        """With MLPerf's word on whether that is luck, which here is asked of both ends."""
        line = self.ratio(Metric.SAMPLES_TO_TARGET, metrics.samples_to_target)
        base, new = (_all(side, metrics.samples_to_target) for side in (self.base, self.new))
        if line.verdict is Verdict.ABSENT or base is None or new is None:
            return line
        luck, mean = epochs_allowed(base, len(new)), olympic_mean(new)
        if luck is None or mean is None or luck.fewest <= mean <= luck.most:
            return line
        fewer = mean < luck.fewest
        end = luck.fewest if fewer else luck.most
        note = (
            f"MLPerf's rule calls {'fewer' if fewer else 'more'} than {end:,.0f} no luck (olympic "
            f"means): {mean:,.0f}"
        )
        return replace(line, note=note)

    def accuracy(self) -> MetricComparison:
        """The last evaluations' means: equivalence within `ACCURACY_MARGIN`, or a difference."""
        metric = Metric.ACCURACY
        base, new = (_all(side, lambda r: r.final_accuracy) for side in (self.base, self.new))
        if not base or not new:
            return _absent(metric, "no evaluation")
        if self.base[0].protocol.stop_at_target:
            return _absent(metric, "of runs that stopped at the target, it is the target's")
        points = [100 * one for one in base], [100 * one for one in new]
        shown, bound = (
            _by_an_image(self._mean(*points, tail / self.comparisons)) for tail in (TAIL, GATE_TAIL)
        )
        # Two one-sided tests (Schuirmann 1987): equal within the margin, whatever the sign.
        if within_margin(bound, -ACCURACY_MARGIN, ACCURACY_MARGIN):
            verdict = Verdict.EQUIVALENT
        else:
            verdict = _sign_verdict(shown.negated(), 0.0)
        spread = intervals.ratio_spread(*points, self._seeds_are_paired)
        needed = _runs_needed(spread, ACCURACY_MARGIN, GATE_TAIL / self.comparisons)
        ends = _mean(base), _mean(new)
        return MetricComparison(
            metric, *ends, shown, bound, verdict, "", spread=spread, runs_needed=needed
        )

    def convergence(self) -> MetricComparison:
        """Whether the mean training loss agrees, epoch by epoch: two-sided, over all epochs.

        A backend that computes something else shows here even if it trains fast and ends well.
        Source of the idea: MLPerf's reference convergence points, which look at the end alone.
        """
        metric = Metric.CONVERGENCE
        if self.base[0].recipe != self.new[0].recipe:
            return _absent(metric, "of other recipes, training losses mean other things")
        of_base, of_new = _losses(self.base), _losses(self.new)
        epochs = sorted(of_base.keys() & of_new.keys())
        few = min(len(self.base), len(self.new)) < summary.FEWEST_RUNS
        if few or not epochs or of_base.keys() != of_new.keys():
            return _absent(metric, "fewer than 3 completed runs" if few else "not the same epochs")
        tail = TAIL / self.comparisons / len(epochs)
        differences = {
            epoch: self._mean(of_base[epoch], of_new[epoch], tail).as_ratio() for epoch in epochs
        }
        apart = [e for e, of in differences.items() if _establish_difference(of)]
        worst = max(apart or epochs, key=lambda epoch: abs(math.log(differences[epoch].value)))
        shown = differences[worst]
        note = f"training loss of epoch {worst}, the most different of {len(epochs)}"
        if apart:
            verdict = Verdict.APART
        elif all(
            within_margin(of, 1 - LOSS_MARGIN, 1 + LOSS_MARGIN) for of in differences.values()
        ):
            verdict = Verdict.ALIKE
        else:
            verdict = Verdict.UNCLEAR
        before, after = (math.exp(_mean(side[worst])) for side in (of_base, of_new))
        return MetricComparison(metric, before, after, shown, shown, verdict, note)


def within_margin(estimate: Estimate, low: float, high: float) -> bool:
    """Whether the whole interval lies between."""
    return (
        estimate.low is not None
        and estimate.high is not None
        and low < estimate.low
        and estimate.high < high
    )


def _by_an_image(difference: Estimate) -> Estimate:
    """Not narrower than the images are counted: equal accuracies are equal to an image."""
    if difference.low is None or difference.high is None:
        return difference
    low, high = difference.value - IMAGE, difference.value + IMAGE
    return Estimate(difference.value, min(difference.low, low), max(difference.high, high))


def _establish_difference(ratio: Estimate) -> bool:
    """Established to differ, and by more than the margin."""
    if ratio.low is None or ratio.high is None:
        return False
    return not ratio.low <= 1 <= ratio.high and abs(ratio.value - 1) > LOSS_MARGIN


def _sign_verdict(estimate: Estimate, none: float) -> Verdict:
    """Worse where all of the interval is above `none`, better where all is below."""
    if estimate.low is not None and estimate.low > none:
        return Verdict.WORSE
    if estimate.high is not None and estimate.high < none:
        return Verdict.BETTER
    return Verdict.UNCLEAR


def _runs_needed(spread: float | None, difference: float, tail: float) -> int | None:
    return None if spread is None else intervals.runs_needed(spread, difference, tail, POWER)


def _absent(metric: Metric, note: str) -> MetricComparison:
    return MetricComparison(metric, None, None, None, None, Verdict.ABSENT, note)


def _seconds_an_image(record: RunRecord) -> float | None:
    rate = metrics.images_per_second(record)
    return 1 / rate if rate else None


def _losses(records: Sequence[RunRecord]) -> dict[int, list[float]]:
    """Logarithms of the training losses, by epoch, of the epochs that every run has."""
    by_epoch: dict[int, list[float]] = {}
    for record in records:
        for epoch in record.epochs:
            if epoch.loss is not None and epoch.loss > 0:
                by_epoch.setdefault(epoch.epoch, []).append(math.log(epoch.loss))
    return {epoch: logs for epoch, logs in by_epoch.items() if len(logs) == len(records)}


def _all(
    records: Sequence[RunRecord], value: Callable[[RunRecord], float | None]
) -> list[float] | None:
    """Every run's value; None where one has none, or none is there."""
    values = [value(record) for record in records]
    known = [one for one in values if one is not None and math.isfinite(one)]
    return known if known and len(known) == len(values) else None


def _median(values: Sequence[float]) -> float | None:
    return summary.summarize(values).median


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
