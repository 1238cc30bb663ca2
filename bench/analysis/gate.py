"""A comparison as a gate: pass, regression, or cannot tell. One plain line a metric.

It fires when a difference is *established* and larger than what was allowed and than the machine's
noise floor; it passes when one larger than what was allowed is ruled out; each with 5 % to err. In
between it cannot tell, and says how many runs would: a gate that passes whatever it cannot see is
no gate. Nor is one that passes a selection: runs that failed, are missing or cannot be read are
findings.
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
    """What a gate says; its exit status."""

    PASS = 0
    REGRESSION = 1
    UNCLEAR = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """What is allowed; None: not judged."""

    slower: float | None = None
    """A relative increase of time to target and of seconds an image: 0.05 for 5 %."""
    less_accurate: float | None = None
    """Percentage points of final accuracy."""


@dataclass(frozen=True, slots=True)
class GateFinding:
    """One line of the gate."""

    outcome: GateOutcome
    text: str


def judge(
    matched: CaseMatch,
    contrasts: Iterable[Comparison],
    limits: Limits,
    floors: Sequence[NoiseFloor] = (),
) -> list[GateFinding]:
    """Everything that the limits are about, and every case that could not be compared.

    Args:
        matched: the sides.
        contrasts: of each of its cases.
        limits: what is allowed.
        floors: noise floors of the base's machine; a time may differ by as much as its case's.
    """
    findings = [
        GateFinding(GateOutcome.UNCLEAR, f"{name}: not among the new runs (missing or renamed)")
        for name in matched.missing
    ]
    findings += [
        GateFinding(GateOutcome.UNCLEAR, f"{problem}: not compared") for problem in matched.unread
    ]
    findings += [
        GateFinding(GateOutcome.PASS, f"{name}: new, nothing to compare it with")
        for name in matched.added
    ]
    for contrast in contrasts:
        if not contrast.case.same_machine:
            text = f"{contrast.case.name}: the base is of another machine: measure it on this one"
            findings.append(GateFinding(GateOutcome.UNCLEAR, text))
            continue
        case = contrast.case
        outcome = GateOutcome.REGRESSION if case.broke else GateOutcome.UNCLEAR
        findings += [GateFinding(outcome, f"{case.name}: {line}") for line in case.unfinished]
        floor = find_noise_floor(case.setup_name, case.base[0].setup.device_name, floors)
        for line in contrast.lines:
            if finding := _finding(line, contrast, limits, floor):
                outcome, text = finding
                findings.append(GateFinding(outcome, f"{contrast.case.name}: {text}"))
    return findings


def verdict(findings: Iterable[GateFinding]) -> GateOutcome:
    """Of all of them: a regression outweighs what is unclear. Of none: unclear."""
    outcomes = {finding.outcome for finding in findings}
    for outcome in (GateOutcome.REGRESSION, GateOutcome.UNCLEAR, GateOutcome.PASS):
        if outcome in outcomes:
            return outcome
    return GateOutcome.UNCLEAR


def _finding(
    line: MetricComparison, contrast: Comparison, limits: Limits, floor: float
) -> tuple[GateOutcome, str] | None:
    match line.metric:
        case Metric.TIME_TO_TARGET | Metric.SECONDS_AN_IMAGE if limits.slower is not None:
            return _time(line, contrast, limits.slower, floor)
        case Metric.ACCURACY if limits.less_accurate is not None:
            return _accuracy(line, contrast, limits.less_accurate)
        case Metric.CONVERGENCE if line.verdict is Verdict.APART:
            return GateOutcome.REGRESSION, f"convergence: {line.verdict}: {line.note}"
        case _:
            return None


def _times(ratio: float) -> str:
    """``"+3.1 %"``: how much longer."""
    return f"{100 * (ratio - 1):+.1f} %"


def _time(
    line: MetricComparison, contrast: Comparison, allowed: float, floor: float
) -> tuple[GateOutcome, str]:
    bound = line.bound
    if bound is None:
        return _unmeasured(line)
    limit, fires = 1 + allowed, 1 + max(allowed, floor)
    why = f"allowed {_times(limit)}"
    if floor > allowed:
        why += f", noise floor {_times(fires)}"
    text = f"{line.metric}: {_times(bound.value)} ({_between(bound)}; {why})"
    if bound.low is not None and bound.low > fires:
        return GateOutcome.REGRESSION, f"{text}: slower"
    if bound.high is not None and bound.high < limit:
        return GateOutcome.PASS, f"{text}: not slower"
    if bound.low is not None and bound.low > limit:
        return GateOutcome.UNCLEAR, f"{text}: slower, but within this machine's noise"
    distance = abs(math.log(limit) - math.log(bound.value))
    return GateOutcome.UNCLEAR, f"{text}: cannot tell{_advice(line, contrast, distance)}"


def _accuracy(
    line: MetricComparison, contrast: Comparison, allowed: float
) -> tuple[GateOutcome, str]:
    bound = line.bound
    if bound is None:
        return _unmeasured(line)
    ends = "too few runs for an interval"
    if bound.low is not None and bound.high is not None:
        ends = f"{bound.low:+.3f} to {bound.high:+.3f}"
    text = f"{line.metric}: {bound.value:+.3f} points ({ends}; allowed {-allowed:+.3g})"
    if bound.high is not None and bound.high < -allowed:
        return GateOutcome.REGRESSION, f"{text}: less accurate"
    if bound.low is not None and bound.low > -allowed:
        return GateOutcome.PASS, f"{text}: not less accurate"
    distance = abs(bound.value + allowed)
    return GateOutcome.UNCLEAR, f"{text}: cannot tell{_advice(line, contrast, distance)}"


def _unmeasured(line: MetricComparison) -> tuple[GateOutcome, str]:
    """A metric without an interval."""
    match line.verdict:
        case Verdict.UNREACHED:
            # Short trainings reach no target, on either side; their speed is judged all the same.
            return GateOutcome.PASS, f"{line.metric}: not judged, {line.note}"
        case Verdict.WORSE:
            return GateOutcome.REGRESSION, f"{line.metric}: {line.verdict}: {line.note}"
        case _:
            return GateOutcome.UNCLEAR, f"{line.metric}: {line.verdict}: {line.note}"


def _between(ratio: Estimate) -> str:
    if ratio.low is None or ratio.high is None:
        return "too few runs for an interval"
    return f"{_times(ratio.low)} to {_times(ratio.high)}"


def _advice(line: MetricComparison, contrast: Comparison, distance: float) -> str:
    """How many runs would tell the difference that was found from the limit."""
    here = min(len(contrast.case.base), len(contrast.case.new))
    if line.spread is None:
        few = f"; {line.fewest_runs} runs a side are the fewest that could"
        return few if here < line.fewest_runs else "; more runs would"
    needed = sample_size.runs_needed(line.spread, distance, contrast.gate_tail, POWER)
    if needed is None:
        return ": it is as large as is allowed"
    return f"; about {max(needed, line.fewest_runs, here + 1)} runs a side would"
