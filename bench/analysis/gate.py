"""A comparison as a gate: pass, regression, or cannot tell, with one line per metric.

It fires (a regression) where the interval of the difference lies wholly above the limit and above
the machine's noise floor, and passes where it lies wholly below the limit. Either is wrong with
probability 5 %. Otherwise it cannot tell, and says about how many runs could: what the runs do not
show must not pass. Nor must a selection of runs: runs that failed, are missing or cannot be read
are findings.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from bench.analysis.cases import CaseMatch
from bench.analysis.comparison import POWER, Comparison, Metric, MetricComparison, Verdict
from bench.records.sidecars import NoiseFloor, find_noise_floor
from bench.stats import sample_size
from bench.stats.intervals import Estimate


class GateOutcome(IntEnum):
    """A gate's result; the value is the exit status."""

    PASS = 0
    REGRESSION = 1
    UNCLEAR = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest differences that are allowed; a metric without a limit is not judged."""

    slower: float | None = None
    """Relative increase of time to target and of seconds per image: 0.05 for 5 %."""
    less_accurate: float | None = None
    """Decrease of final accuracy, in percentage points."""


@dataclass(frozen=True, slots=True)
class GateFinding:
    """One line of the gate."""

    outcome: GateOutcome
    text: str


def judge(
    matched: CaseMatch,
    comparisons: Iterable[Comparison],
    limits: Limits,
    floors: Sequence[NoiseFloor] = (),
) -> list[GateFinding]:
    """Judge every metric that has a limit, and every case that could not be compared.

    Args:
        matched: the cases of the two sides.
        comparisons: the comparison of each case.
        limits: the largest differences that are allowed.
        floors: noise floors of the base's machine: a time is no regression within its case's one.
    """
    findings = [
        *(
            GateFinding(GateOutcome.UNCLEAR, f"{name}: not among the new runs (missing or renamed)")
            for name in matched.missing
        ),
        *(GateFinding(GateOutcome.UNCLEAR, f"{line}: not compared") for line in matched.unreadable),
        *(
            GateFinding(GateOutcome.PASS, f"{name}: new, nothing to compare it with")
            for name in matched.added
        ),
    ]
    for comparison in comparisons:
        findings += _judge_case(comparison, limits, floors)
    return findings


def _judge_case(
    comparison: Comparison, limits: Limits, floors: Sequence[NoiseFloor]
) -> list[GateFinding]:
    case = comparison.case
    if not case.same_machine:
        text = f"{case.name}: the base is of another machine: measure it on this one"
        return [GateFinding(GateOutcome.UNCLEAR, text)]
    outcome = GateOutcome.REGRESSION if case.only_new_failed else GateOutcome.UNCLEAR
    findings = [GateFinding(outcome, f"{case.name}: {line}") for line in case.unfinished]
    floor = find_noise_floor(case.setup_name, case.base[0].setup.device_name, floors)
    for compared in comparison.lines:
        if judged := _judge_metric(compared, comparison, limits, floor):
            outcome, text = judged
            findings.append(GateFinding(outcome, f"{case.name}: {text}"))
    return findings


def overall_outcome(findings: Iterable[GateFinding]) -> GateOutcome:
    """Regression if one finding is, else unclear if one is, else pass; unclear without findings."""
    outcomes = {finding.outcome for finding in findings}
    for outcome in (GateOutcome.REGRESSION, GateOutcome.UNCLEAR, GateOutcome.PASS):
        if outcome in outcomes:
            return outcome
    return GateOutcome.UNCLEAR


def _judge_metric(
    compared: MetricComparison, comparison: Comparison, limits: Limits, floor: float
) -> tuple[GateOutcome, str] | None:
    """The outcome and its reason; None where no limit is for the metric."""
    match compared.metric:
        case Metric.TIME_TO_TARGET | Metric.SECONDS_PER_IMAGE if limits.slower is not None:
            return _judge_time(compared, comparison, limits.slower, floor)
        case Metric.ACCURACY if limits.less_accurate is not None:
            return _judge_accuracy(compared, comparison, limits.less_accurate)
        case Metric.CONVERGENCE if compared.verdict is Verdict.APART:
            return GateOutcome.REGRESSION, f"convergence: {compared.verdict}: {compared.note}"
        case _:
            return None


def _percent_longer(ratio: float) -> str:
    """``"+3.1 %"`` for 1.031."""
    return f"{100 * (ratio - 1):+.1f} %"


def _judge_time(
    compared: MetricComparison, comparison: Comparison, allowed: float, floor: float
) -> tuple[GateOutcome, str]:
    difference = compared.gate_difference
    if difference is None:
        return _judge_without_interval(compared)
    limit, regression_limit = 1 + allowed, 1 + max(allowed, floor)
    limits = f"allowed {_percent_longer(limit)}"
    if floor > allowed:
        limits += f", noise floor {_percent_longer(regression_limit)}"
    change = f"{_percent_longer(difference.value)} ({_interval(difference)}; {limits})"
    text = f"{compared.metric}: {change}"
    if difference.low is not None and difference.low > regression_limit:
        return GateOutcome.REGRESSION, f"{text}: slower"
    if difference.high is not None and difference.high < limit:
        return GateOutcome.PASS, f"{text}: not slower"
    if difference.low is not None and difference.low > limit:
        return GateOutcome.UNCLEAR, f"{text}: slower, but within this machine's noise"
    distance = abs(math.log(limit) - math.log(difference.value))
    return GateOutcome.UNCLEAR, f"{text}: cannot tell{_advice(compared, comparison, distance)}"


def _judge_accuracy(
    compared: MetricComparison, comparison: Comparison, allowed: float
) -> tuple[GateOutcome, str]:
    difference = compared.gate_difference
    if difference is None:
        return _judge_without_interval(compared)
    interval = "too few runs for an interval"
    if difference.low is not None and difference.high is not None:
        interval = f"{difference.low:+.3f} to {difference.high:+.3f}"
    change = f"{difference.value:+.3f} points ({interval}; allowed {-allowed:+.3g})"
    text = f"{compared.metric}: {change}"
    if difference.high is not None and difference.high < -allowed:
        return GateOutcome.REGRESSION, f"{text}: less accurate"
    if difference.low is not None and difference.low > -allowed:
        return GateOutcome.PASS, f"{text}: not less accurate"
    distance = abs(difference.value + allowed)
    return GateOutcome.UNCLEAR, f"{text}: cannot tell{_advice(compared, comparison, distance)}"


def _judge_without_interval(compared: MetricComparison) -> tuple[GateOutcome, str]:
    match compared.verdict:
        case Verdict.UNREACHED:
            # Short trainings do not reach the target on either side; their speed is still judged.
            return GateOutcome.PASS, f"{compared.metric}: not judged, {compared.note}"
        case Verdict.WORSE:
            return GateOutcome.REGRESSION, f"{compared.metric}: {compared.verdict}: {compared.note}"
        case _:
            return GateOutcome.UNCLEAR, f"{compared.metric}: {compared.verdict}: {compared.note}"


def _interval(ratio: Estimate) -> str:
    if ratio.low is None or ratio.high is None:
        return "too few runs for an interval"
    return f"{_percent_longer(ratio.low)} to {_percent_longer(ratio.high)}"


def _advice(compared: MetricComparison, comparison: Comparison, distance: float) -> str:
    """How many runs would distinguish the difference from the limit.

    Args:
        compared: the metric, as the sides differ in it.
        comparison: its case.
        distance: from the difference to the limit, in the unit of the metric's spread.
    """
    runs = min(len(comparison.case.base), len(comparison.case.new))
    if compared.spread is None:
        fewest = f"; {compared.fewest_runs} runs per side are the fewest that could"
        return fewest if runs < compared.fewest_runs else "; more runs would"
    needed = sample_size.runs_needed(compared.spread, distance, comparison.gate_tail, POWER)
    if needed is None:
        return "; too many runs needed"
    return f"; about {max(needed, compared.fewest_runs, runs + 1)} runs per side would"
