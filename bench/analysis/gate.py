"""A comparison as a gate: pass, regression, or cannot tell, with one line per metric.

The gate fires when a difference is *established* that is larger than the limit and than the
machine's noise floor. It passes when a difference larger than the limit is ruled out. Either is
wrong with probability 5 %. Otherwise it cannot tell, and says how many runs could: a gate must not
pass what it cannot see. Nor must it pass a selection of runs: runs that failed, are missing or
cannot be read are findings.
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
        floors: noise floors of the base's machine; a time may differ by its case's noise floor.
    """
    findings = [
        *(
            GateFinding(GateOutcome.UNCLEAR, f"{name}: not among the new runs (missing or renamed)")
            for name in matched.missing
        ),
        *(GateFinding(GateOutcome.UNCLEAR, f"{line}: not compared") for line in matched.unread),
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
    outcome = GateOutcome.REGRESSION if case.broke else GateOutcome.UNCLEAR
    findings = [GateFinding(outcome, f"{case.name}: {line}") for line in case.unfinished]
    floor = find_noise_floor(case.setup_name, case.base[0].setup.device_name, floors)
    for line in comparison.lines:
        if judged := _judge_metric(line, comparison, limits, floor):
            outcome, text = judged
            findings.append(GateFinding(outcome, f"{case.name}: {text}"))
    return findings


def verdict(findings: Iterable[GateFinding]) -> GateOutcome:
    """The outcome of all findings: a regression outweighs an unclear one; unclear without any."""
    outcomes = {finding.outcome for finding in findings}
    for outcome in (GateOutcome.REGRESSION, GateOutcome.UNCLEAR, GateOutcome.PASS):
        if outcome in outcomes:
            return outcome
    return GateOutcome.UNCLEAR


def _judge_metric(
    line: MetricComparison, comparison: Comparison, limits: Limits, floor: float
) -> tuple[GateOutcome, str] | None:
    """The outcome and its reason; None where the limits do not ask for the metric."""
    match line.metric:
        case Metric.TIME_TO_TARGET | Metric.SECONDS_AN_IMAGE if limits.slower is not None:
            return _judge_time(line, comparison, limits.slower, floor)
        case Metric.ACCURACY if limits.less_accurate is not None:
            return _judge_accuracy(line, comparison, limits.less_accurate)
        case Metric.CONVERGENCE if line.verdict is Verdict.APART:
            return GateOutcome.REGRESSION, f"convergence: {line.verdict}: {line.note}"
        case _:
            return None


def _percent_longer(ratio: float) -> str:
    """``"+3.1 %"`` for 1.031."""
    return f"{100 * (ratio - 1):+.1f} %"


def _judge_time(
    line: MetricComparison, comparison: Comparison, allowed: float, floor: float
) -> tuple[GateOutcome, str]:
    bound = line.bound
    if bound is None:
        return _judge_without_interval(line)
    limit, fires = 1 + allowed, 1 + max(allowed, floor)
    why = f"allowed {_percent_longer(limit)}"
    if floor > allowed:
        why += f", noise floor {_percent_longer(fires)}"
    text = f"{line.metric}: {_percent_longer(bound.value)} ({_interval(bound)}; {why})"
    if bound.low is not None and bound.low > fires:
        return GateOutcome.REGRESSION, f"{text}: slower"
    if bound.high is not None and bound.high < limit:
        return GateOutcome.PASS, f"{text}: not slower"
    if bound.low is not None and bound.low > limit:
        return GateOutcome.UNCLEAR, f"{text}: slower, but within this machine's noise"
    distance = abs(math.log(limit) - math.log(bound.value))
    return GateOutcome.UNCLEAR, f"{text}: cannot tell{_advice(line, comparison, distance)}"


def _judge_accuracy(
    line: MetricComparison, comparison: Comparison, allowed: float
) -> tuple[GateOutcome, str]:
    bound = line.bound
    if bound is None:
        return _judge_without_interval(line)
    ends = "too few runs for an interval"
    if bound.low is not None and bound.high is not None:
        ends = f"{bound.low:+.3f} to {bound.high:+.3f}"
    text = f"{line.metric}: {bound.value:+.3f} points ({ends}; allowed {-allowed:+.3g})"
    if bound.high is not None and bound.high < -allowed:
        return GateOutcome.REGRESSION, f"{text}: less accurate"
    if bound.low is not None and bound.low > -allowed:
        return GateOutcome.PASS, f"{text}: not less accurate"
    distance = abs(bound.value + allowed)
    return GateOutcome.UNCLEAR, f"{text}: cannot tell{_advice(line, comparison, distance)}"


def _judge_without_interval(line: MetricComparison) -> tuple[GateOutcome, str]:
    match line.verdict:
        case Verdict.UNREACHED:
            # Short trainings do not reach the target on either side; their speed is still judged.
            return GateOutcome.PASS, f"{line.metric}: not judged, {line.note}"
        case Verdict.WORSE:
            return GateOutcome.REGRESSION, f"{line.metric}: {line.verdict}: {line.note}"
        case _:
            return GateOutcome.UNCLEAR, f"{line.metric}: {line.verdict}: {line.note}"


def _interval(ratio: Estimate) -> str:
    if ratio.low is None or ratio.high is None:
        return "too few runs for an interval"
    return f"{_percent_longer(ratio.low)} to {_percent_longer(ratio.high)}"


def _advice(line: MetricComparison, comparison: Comparison, distance: float) -> str:
    """How many runs would distinguish the difference from the limit.

    Args:
        line: the metric.
        comparison: its case.
        distance: from the difference to the limit, in the unit of the metric's spread.
    """
    runs = min(len(comparison.case.base), len(comparison.case.new))
    if line.spread is None:
        fewest = f"; {line.fewest_runs} runs per side are the fewest that could"
        return fewest if runs < line.fewest_runs else "; more runs would"
    needed = sample_size.runs_needed(line.spread, distance, comparison.gate_tail, POWER)
    if needed is None:
        return "; too many runs needed"
    return f"; about {max(needed, line.fewest_runs, runs + 1)} runs per side would"
