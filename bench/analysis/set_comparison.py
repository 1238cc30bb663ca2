"""Several run sets against one base: what `compare` computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from bench.analysis.case_comparison import compare_case
from bench.analysis.cases import FAILURES, CaseMatch, group_by_kind, match_cases, setup_name
from bench.analysis.comparison import Comparison
from bench.analysis.device_comparison import (
    DeviceComparison,
    compare_devices,
    mixes_code_and_device,
)
from bench.analysis.gate import GateFinding, Limits, judge, judge_without_baseline
from bench.analysis.run_sets import RunSet
from bench.analysis.same_code import require_one_state
from bench.analysis.sessions import floor_remark
from bench.records.schema import RunRecord
from bench.records.sidecars import NoiseFloor
from bench.text import printable
from mnist_cnn.errors import UsageError

DEFAULT_DIFFERENCE = 0.05
"""Relative difference of times for which a number of runs is advised."""


@dataclass(frozen=True, slots=True)
class SetComparison:
    """One run set, compared with the base."""

    new: RunSet
    """The run set."""
    match: CaseMatch
    """Its cases and those of the base."""
    comparisons: tuple[Comparison, ...]
    """One comparison for each case that both have."""
    devices: DeviceComparison | None = None
    """The machines compared with torch's operators on both, where the one case that there is has
    other machines and other kernels; else None."""


def compare_sets(
    base: RunSet,
    others: Sequence[RunSet],
    difference: float,
    floors: Sequence[NoiseFloor] = (),
    read_known: Callable[[], Sequence[RunRecord]] = tuple,
    *,
    is_gate: bool = False,
) -> list[SetComparison]:
    """Compare every other run set with the base.

    Args:
        base: the run set to compare with.
        others: the run sets to compare.
        difference: relative difference of times that the comparison should be able to detect.
        floors: noise floors of the base's machine, which become remarks.
        read_known: reads the runs among which those with torch's operators are looked for. It is
            called only where two machines with different kernels are compared.
        is_gate: whether a case without completed runs is to be judged; else it is refused.

    Raises:
        UsageError: two sets cannot be compared, a case has no completed run, or a side holds runs
            of several commits or machines.
    """
    matches = [_with_floors(match_cases(base, new), floors) for new in others]
    if is_gate:
        matches = [_apart_from_uncompleted(match) for match in matches]
    for new, match in zip(others, matches, strict=True):
        _require_completed_runs(match)
        for case in match.cases:
            require_one_state(base, case.name, case.base)
            require_one_state(new, case.name, case.new)
    count = sum(len(match.cases) for match in matches)
    return [
        SetComparison(
            new,
            match,
            tuple(compare_case(case, count, difference) for case in match.cases),
            # Of one case only: below several tables it would not be clear whose it is.
            compare_devices(match.cases[0], read_known(), count, difference)
            if len(match.cases) == 1 and mixes_code_and_device(match.cases[0])
            else None,
        )
        for new, match in zip(others, matches, strict=True)
    ]


def _with_floors(match: CaseMatch, floors: Sequence[NoiseFloor]) -> CaseMatch:
    """The same cases, each with a remark about the noise of its base's machine."""
    cases = []
    for case in match.cases:
        noise = floor_remark(case.setup_name, case.base[0], floors) if case.base else None
        cases.append(case if noise is None else replace(case, noise_remarks=(noise,)))
    return replace(match, cases=tuple(cases))


def _apart_from_uncompleted(match: CaseMatch) -> CaseMatch:
    complete = tuple(case for case in match.cases if case.base and case.new)
    uncompleted = tuple(case for case in match.cases if not (case.base and case.new))
    return replace(match, cases=complete, uncompleted=uncompleted)


def _require_completed_runs(match: CaseMatch) -> None:
    for case in match.cases:
        for side, runs in (("base", case.base), ("new", case.new)):
            if not runs:
                raise UsageError(f"{case.name}: the {side} side has no completed run")


def judge_sets(
    compared: Iterable[SetComparison], limits: Limits, floors: Sequence[NoiseFloor]
) -> list[GateFinding]:
    """What the gate finds in all comparisons.

    Args:
        compared: from `compare_sets`.
        limits: what is allowed.
        floors: noise floors of the base's machine.
    """
    return [
        finding
        for comparison in compared
        for finding in judge(comparison.match, comparison.comparisons, limits, floors)
    ]


def judge_first_runs(base: str, others: Sequence[RunSet], limits: Limits) -> list[GateFinding]:
    """What the gate finds where there is no baseline yet.

    Args:
        base: the name that stands for no runs.
        others: the new run sets, which may become the baseline.
        limits: what is allowed.

    Raises:
        UsageError: a set has no run that completed or failed, or holds runs of several commits or
            machines.
    """
    findings = []
    for new in others:
        if not any(record.counts or record.status in FAILURES for record in new.records):
            raise UsageError(f"{printable(new.name)} has no completed run")
        (groups,) = group_by_kind(new)
        for records in groups.values():
            require_one_state(new, setup_name(records[0]), records)
        findings += judge_without_baseline(base, new, list(groups.values()), limits)
    return findings
