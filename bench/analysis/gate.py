"""A comparison as a gate: pass, regression, or cannot tell, with one line per metric.

Runs of a fixed schedule are judged in the time an image, the share that reached the target and the
accuracy; runs that stop at the target in the time to target as well. A metric fires (a regression)
where the interval of the difference lies wholly above the limit and above the machine's noise
floor, and passes where it lies wholly below the limit. Either is wrong with probability 5 %:
firing over all cases together, passing in each case alone, because all cases must pass. Otherwise
it cannot tell, and says about how many runs could: what the runs do not show must not pass. Nor
must a selection of runs: runs that failed, are missing or cannot be read are findings. Other work
on the machine is no slower program: a side that it disturbed neither fires nor passes by its times,
unless the sides took turns, so that both were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from bench.analysis.cases import FAILURES, Case, CaseMatch, interleaved, setup_name
from bench.analysis.comparison import (
    GATE_TAIL,
    POWER,
    SHARE_TAIL,
    Comparison,
    Metric,
    MetricComparison,
    Verdict,
)
from bench.analysis.machine_differences import differing_facts, machine_slowdown, unknown_facts
from bench.analysis.metrics import completed
from bench.analysis.result_warnings import disturbance
from bench.analysis.run_sets import RunSet
from bench.analysis.sessions import SESSION_SHIFT, share_session
from bench.analysis.share_comparison import ReachedCounts
from bench.records.machine_key import MachineKey, MachineRelation
from bench.records.schema import RunRecord
from bench.records.sidecars import NoiseFloor, find_noise_floor
from bench.stats import sample_size
from bench.text import Rounding, count_of, printable, rounded


class GateOutcome(IntEnum):
    """A gate's result; the value is the exit status."""

    PASS = 0
    REGRESSION = 1
    UNCLEAR = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest differences that are allowed; a metric without a limit is not judged."""

    slower: float | None = None
    """Relative increase of seconds per image: 0.05 for 5 %. Also of the time to target, where runs
    stop at the target."""
    less_accurate: float | None = None
    """Decrease of final accuracy, in percentage points."""


@dataclass(frozen=True, slots=True)
class GateFinding:
    """One line of the gate, and for programs what it was judged by."""

    outcome: GateOutcome
    text: str
    """The finding in words; it begins with the case's name, where it is of a case."""
    case: str | None = None
    """The set-up, as comparisons name it."""
    metric: Metric | None = None
    """What was judged; None where nothing could be, as of runs that are missing."""
    difference: float | None = None
    """Ratio new to base; of accuracy, percentage points more."""
    bound: float | None = None
    """The end of the one-sided interval (95 %) that decides; None where there are too few runs."""
    allowed: float | None = None
    """The limit, as `difference` has it: 1.1, or -0.05 points."""
    runs_needed: int | None = None
    """About how many runs per side would tell; None where these do, or where it is not known."""

    @property
    def short_text(self) -> str:
        """The finding in words, without the case's name."""
        return self.text if self.case is None else self.text.removeprefix(f"{self.case}: ")


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
        *(GateFinding(GateOutcome.UNCLEAR, f"{line}: not compared") for line in matched.unreadable),
        *(
            GateFinding(
                GateOutcome.UNCLEAR,
                f"{name}: not among the new runs (missing or renamed)",
                case=name,
            )
            for name in matched.missing
        ),
        *(
            GateFinding(GateOutcome.PASS, f"{name}: new, nothing to compare it with", case=name)
            for name in matched.added
        ),
    ]
    findings += map(_judge_uncompleted, matched.uncompleted)
    for comparison in comparisons:
        findings += _judge_case(comparison, limits, floors)
    return findings


def judge_without_baseline(
    base: str, new: RunSet, cases: Iterable[Sequence[RunRecord]], limits: Limits
) -> list[GateFinding]:
    """The findings where there is no baseline yet: a pass that says so if the runs can become it.

    Args:
        base: the name that stands for no runs.
        new: the new side.
        cases: its runs by case.
        limits: what later runs will be judged by.
    """
    runs, name = new.records, printable(new.name)
    text = f"no baseline yet: nothing is called {printable(base)}, so nothing was compared"
    doubts = []
    if incomplete := [record for record in runs if not record.counts]:
        has_failed = any(record.status in FAILURES for record in incomplete)
        outcome = GateOutcome.REGRESSION if has_failed else GateOutcome.UNCLEAR
        line = f"{name}: {len(incomplete)} of {len(runs)} not completed in one go"
        doubts.append(GateFinding(outcome, line + _last_reason(incomplete)))
    for case in cases if limits.slower is not None else ():
        done = completed(case)
        if what := disturbance(done):
            setup = setup_name(case[0])
            line = (
                f"{setup}: {what}: as a baseline they could not show that later code is no slower; "
                "measure on a quiet machine"
            )
            doubts.append(GateFinding(GateOutcome.UNCLEAR, line, case=setup))
    if not doubts:
        text += f"; the {count_of(len(runs), 'run')} of {name} can become it"
    return [*doubts, GateFinding(GateOutcome.PASS, text)]


def _judge_uncompleted(case: Case) -> GateFinding:
    """What to say of a case of which a side has no completed run."""
    side, runs = ("base", case.all_base) if not case.base else ("new", case.all_new)
    all_failed = all(record.status in FAILURES for record in case.all_new)
    is_regression = bool(case.base) and case.same_machine and (all_failed or case.only_new_failed)
    text = f"{case.name}: the {side} side has no completed run{_last_reason(runs)}"
    outcome = GateOutcome.REGRESSION if is_regression else GateOutcome.UNCLEAR
    return GateFinding(outcome, text, case=case.name)


def _last_reason(runs: Sequence[RunRecord]) -> str:
    """`` (failed: the reason)`` of the last of these runs that gives one, of failed ones first."""
    told = [(record.status, record.reason) for record in runs if record.reason]
    failed = [(status, reason) for status, reason in told if status in FAILURES]
    for status, reason in reversed(failed or told):
        return f" ({status.value}: {printable(reason)})"
    return ""


def _judge_case(
    comparison: Comparison, limits: Limits, floors: Sequence[NoiseFloor]
) -> list[GateFinding]:
    case = comparison.case
    if case.machine_relation is MachineRelation.DIFFERENT:
        facts = differing_facts(case.base, case.new)
        text = f"{case.name}: the base is of another machine ({facts}): measure it on this one"
        return [GateFinding(GateOutcome.UNCLEAR, text, case=case.name)]
    outcome = GateOutcome.REGRESSION if case.only_new_failed else GateOutcome.UNCLEAR
    findings = [
        GateFinding(outcome, f"{case.name}: {line}", case=case.name) for line in case.unfinished
    ]
    if case.machine_relation is MachineRelation.UNKNOWN:
        facts = unknown_facts(case.base, case.new)
        text = f"{case.name}: warning: perhaps not the same machine, one side does not say: {facts}"
        findings.append(GateFinding(GateOutcome.PASS, text, case=case.name))
    record = case.base[0]
    machine = MachineKey.of(record.environment).digest
    floor = find_noise_floor(case.setup_name, record.setup.device_name, floors, machine)
    if limits.slower is not None and max(limits.slower, floor) < SESSION_SHIFT:
        findings += _warn_of_sessions(case)
    for compared in comparison.lines:
        if judged := _judge_metric(compared, comparison, limits, floor):
            text = f"{case.name}: {judged.text}"
            findings.append(replace(judged, text=text, case=case.name, metric=compared.metric))
    return findings


def _warn_of_sessions(case: Case) -> list[GateFinding]:
    """A line where sides of two sessions are to differ by less than sessions do."""
    if share_session(case.base, case.new):
        return []
    text = (
        f"{case.name}: warning: the sides are of two sessions, and times of a machine's sessions "
        f"differ by up to {100 * SESSION_SHIFT:.0f} %: allow more, or let the sides take turns (ab)"
    )
    return [GateFinding(GateOutcome.PASS, text, case=case.name)]


def overall_outcome(findings: Iterable[GateFinding]) -> GateOutcome:
    """Regression if one finding is, else unclear if one is, else pass; unclear without findings."""
    outcomes = {finding.outcome for finding in findings}
    for outcome in (GateOutcome.REGRESSION, GateOutcome.UNCLEAR, GateOutcome.PASS):
        if outcome in outcomes:
            return outcome
    return GateOutcome.UNCLEAR


def _judge_metric(
    compared: MetricComparison, comparison: Comparison, limits: Limits, floor: float
) -> GateFinding | None:
    """The finding, without the case's name; None where no limit is for the metric."""
    match compared.metric:
        case Metric.SECONDS_PER_IMAGE if limits.slower is not None:
            return _judge_time(compared, comparison, limits.slower, floor)
        case Metric.TIME_TO_TARGET if limits.slower is not None and not comparison.fixed_schedule:
            return _judge_time(compared, comparison, limits.slower, floor)
        case Metric.SHARE_REACHED:
            return _judge_share(comparison, limits)
        case Metric.ACCURACY if limits.less_accurate is not None:
            return _judge_accuracy(compared, comparison, limits.less_accurate)
        case Metric.CONVERGENCE if compared.verdict is Verdict.APART:
            text = f"convergence: {compared.verdict}: {compared.note}"
            return GateFinding(GateOutcome.REGRESSION, text)
        case _:
            return None


def _judge_share(comparison: Comparison, limits: Limits) -> GateFinding:
    """Fires where chance does not explain the misses; what it lets through, accuracy must judge."""
    counts = ReachedCounts.of(comparison.case.base, comparison.case.new)
    text = f"{Metric.SHARE_REACHED}: {counts}"
    # Of all cases together, at most `SHARE_TAIL`; `gate_tail` is the share of this one in them.
    if counts.worse_by_chance <= SHARE_TAIL * comparison.gate_tail / GATE_TAIL:
        return GateFinding(GateOutcome.REGRESSION, f"{text}: fewer, and not by chance")
    if not counts.new_missed or not comparison.fixed_schedule:
        return GateFinding(GateOutcome.PASS, f"{text}: not shown to be less")
    if limits.less_accurate is None:
        advice = "where runs miss the target, time alone is no limit: add --fail-if-less-accurate"
        return GateFinding(GateOutcome.UNCLEAR, f"{text}: {advice}")
    if not counts.base:
        text += ": a baseline that never reached it cannot show fewer"
    else:
        text += ": not shown to be less"
    text += "; the limit for accuracy decides"
    return GateFinding(GateOutcome.PASS, text)


def _percent_longer(ratio: float, rounding: Rounding = Rounding.NEAREST) -> str:
    """``"+3.1 %"`` for 1.031."""
    return f"{rounded(100 * (ratio - 1), 1, rounding):+.1f} %"


def _judge_time(
    compared: MetricComparison, comparison: Comparison, allowed: float, floor: float
) -> GateFinding:
    fires, passes = compared.gate_difference, compared.pass_difference
    if fires is None or passes is None:
        return _judge_without_interval(compared)
    limit = 1 + allowed
    # Neither the machine's noise nor a slower machine is a slower program. Neither makes it pass.
    slowdown = machine_slowdown(comparison.case.base, comparison.case.new) or 1.0
    regression_limit = (1 + max(allowed, floor)) * max(1.0, slowdown)
    limits = f"allowed {_percent_longer(limit)}"
    if floor > allowed:
        limits += f", noise floor {_percent_longer(1 + floor)}"
    if slowdown > 1:
        limits += f", the machine itself {_percent_longer(slowdown)}"

    def found(outcome: GateOutcome, conclusion: str, *, by_least: bool) -> GateFinding:
        end, side, rounding = (
            (fires.low, "at least", Rounding.DOWN)
            if by_least
            else (passes.high, "at most", Rounding.UP)
        )
        bound = _bound(side, end, _percent_longer, rounding)
        change = f"{_percent_longer(passes.value)} ({bound}; {limits})"
        text = f"{compared.heading}: {change}: {conclusion}"
        return GateFinding(outcome, text, difference=passes.value, bound=end, allowed=limit)

    case = comparison.case
    if fires.low is not None and fires.low > regression_limit:
        if doubt := _disturbance(case, "new"):
            return found(GateOutcome.UNCLEAR, f"slower than allowed, but {doubt}", by_least=True)
        return found(GateOutcome.REGRESSION, "slower than allowed", by_least=True)
    if passes.high is not None and passes.high < limit:
        if doubt := _disturbance(case, "base"):
            return found(
                GateOutcome.UNCLEAR, f"not slower than allowed, but {doubt}", by_least=False
            )
        return found(GateOutcome.PASS, "not slower than allowed", by_least=False)
    if fires.low is not None and fires.low > limit:
        noise = "within this machine's noise" if fires.low <= 1 + floor else "so is the machine"
        return found(GateOutcome.UNCLEAR, f"slower than allowed, but {noise}", by_least=True)
    if doubt := _disturbance(case, "new", "base"):
        return found(GateOutcome.UNCLEAR, f"cannot tell: {doubt}", by_least=False)
    distance = math.log(limit) - math.log(passes.value)
    advice, runs_needed = _advice(compared, comparison, distance)
    finding = found(GateOutcome.UNCLEAR, f"cannot tell; {advice}", by_least=False)
    return replace(finding, runs_needed=runs_needed)


def _disturbance(case: Case, *sides: str) -> str:
    """What made a side's times too long; empty where nothing did, or where it was in both sides.

    Args:
        case: the case.
        sides: those to look at, ``"base"`` or ``"new"``; the first disturbed one is named.
    """
    if interleaved(case.base, case.new):
        return ""
    for side in sides:
        runs = case.base if side == "base" else case.new
        if what := disturbance(runs, f"{side} run"):
            return f"{what}: measure it on a quiet machine, or let the sides take turns (ab)"
    return ""


def _judge_accuracy(
    compared: MetricComparison, comparison: Comparison, allowed: float
) -> GateFinding:
    fires, passes = compared.gate_difference, compared.pass_difference
    if fires is None or passes is None:
        return _judge_without_interval(compared)

    def found(outcome: GateOutcome, conclusion: str, *, by_most: bool) -> GateFinding:
        end, side, rounding = (
            (fires.high, "at most", Rounding.UP)
            if by_most
            else (passes.low, "at least", Rounding.DOWN)
        )
        bound = _bound(side, end, _points_more, rounding)
        change = f"{_points_more(passes.value)} points ({bound}; allowed {-allowed:+.3g})"
        note = f", {compared.note}" if compared.note else ""
        text = f"{compared.heading}: {change}{note}: {conclusion}"
        return GateFinding(outcome, text, difference=passes.value, bound=end, allowed=-allowed)

    if fires.high is not None and fires.high < -allowed:
        return found(GateOutcome.REGRESSION, "less accurate than allowed", by_most=True)
    if passes.low is not None and passes.low >= -allowed:
        return found(GateOutcome.PASS, "not less accurate than allowed", by_most=False)
    advice, runs_needed = _advice(compared, comparison, passes.value + allowed)
    finding = found(GateOutcome.UNCLEAR, f"cannot tell; {advice}", by_most=False)
    return replace(finding, runs_needed=runs_needed)


def _judge_without_interval(compared: MetricComparison) -> GateFinding:
    if compared.verdict is Verdict.UNREACHED:
        # Of runs that stop at the target: nothing else says what they learned.
        text = f"{compared.heading}: not judged, {compared.note}"
        advice = "leave --stop-at-target out and add --fail-if-less-accurate"
        return GateFinding(GateOutcome.UNCLEAR, f"{text}: {advice}")
    is_worse = compared.verdict is Verdict.WORSE
    outcome = GateOutcome.REGRESSION if is_worse else GateOutcome.UNCLEAR
    return GateFinding(outcome, f"{compared.heading}: {compared.verdict}: {compared.note}")


def _bound(
    side: str, end: float | None, shown: Callable[[float, Rounding], str], rounding: Rounding
) -> str:
    """The end of an interval that decides, as a one-sided bound, rounded outwards."""
    return "too few runs for a bound" if end is None else f"{side} {shown(end, rounding)}"


def _points_more(difference: float, rounding: Rounding = Rounding.NEAREST) -> str:
    """``"+0.031"`` percentage points."""
    return f"{rounded(difference, 3, rounding):+.3f}"


def _advice(
    compared: MetricComparison, comparison: Comparison, distance: float
) -> tuple[str, int | None]:
    """How many runs would distinguish the difference from the limit: in words, and the number.

    Args:
        compared: the metric, as the sides differ in it.
        comparison: its case.
        distance: from the difference to the limit, in the unit of the metric's spread; below zero
            where the difference is beyond the limit, so that more runs would fire.
    """
    runs = min(len(comparison.case.base), len(comparison.case.new))
    if compared.spread is None:
        if runs >= compared.fewest_runs:
            return "more runs would", None
        return f"{compared.fewest_runs} runs per side are the fewest that could", None
    tail = GATE_TAIL if distance > 0 else comparison.gate_tail
    needed = sample_size.runs_needed(compared.spread, abs(distance), tail, POWER)
    if needed is None:
        return "more runs would not do: measure on a quiet machine, or take turns (ab)", None
    needed = max(needed, compared.fewest_runs, runs + 1)
    return f"about {needed} runs per side would", needed
