"""Comparisons as JSON: the content of the tables of `compare` and `ab`, for another program."""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.cases import CaseMatch
from bench.analysis.comparison import Comparison, Metric, MetricComparison
from bench.analysis.device_comparison import DeviceComparison
from bench.analysis.gate import GateFinding, overall_outcome
from bench.analysis.set_comparison import SetComparison
from bench.records.schema import RunRecord
from bench.records.store import machine_name
from bench.report.formats.json import encode

METRIC_COLUMNS = {
    "new_side": "string",
    "name": "string",
    "base_runs": "Int64",
    "new_runs": "Int64",
    "by_turns": "boolean",
    "remarks": "string",
    "metric": "string",
    "per_success": "boolean",
    "base": "Float64",
    "new": "Float64",
    "difference": "Float64",
    "low": "Float64",
    "high": "Float64",
    "difference_unit": "string",
    "verdict": "string",
    "note": "string",
    "runs_needed": "Int64",
}
"""The columns of `metric_rows` and their types in a data frame."""


def to_json(
    base: str,
    compared: Sequence[tuple[str, CaseMatch, Sequence[Comparison], DeviceComparison | None]],
    findings: Sequence[GateFinding] | None = None,
) -> str:
    """One object: the base, what was compared with it, and the findings of a gate.

    A difference is new divided by base; of accuracies and of the share of runs that reached the
    target it is new minus base, in percentage points. Times are seconds, accuracies and shares
    fractions. With ``per_success``, times are the seconds of all runs for each success, otherwise
    medians. Unknown values are null.

    Args:
        base: name of the base.
        compared: the name of each new side, how it was matched with the base, its cases, and the
            comparison of the devices alone where there is one.
        findings: the findings of a gate; None without a gate.
    """
    document = {
        "base": base,
        "comparisons": [
            {
                "new": new,
                "cases": [_case(comparison) for comparison in comparisons],
                "only_base": list(match.missing),
                "only_new": list(match.added),
                "torch_operators": None if devices is None else _devices(devices),
            }
            for new, match, comparisons, devices in compared
        ],
        "gate": None if findings is None else _gate(findings),
    }
    return encode(document)


def metric_rows(compared: Sequence[SetComparison]) -> list[dict[str, object]]:
    """A row for each new side, case and metric: the same values as in `to_json`, flat."""
    return [
        {
            "new_side": each.new.name,
            **_sides(comparison),
            "remarks": "; ".join(comparison.case.remarks),
            **_metric(metric),
        }
        for each in compared
        for comparison in each.comparisons
        for metric in comparison.lines
    ]


def _devices(devices: DeviceComparison) -> dict[str, object]:
    """The machines compared with torch's operators on both, or what is missing for that."""
    comparison = devices.comparison
    return {
        "case": None if comparison is None else _case(comparison),
        "missing": list(devices.missing),
    }


def _sides(comparison: Comparison) -> dict[str, object]:
    case = comparison.case
    return {
        "name": case.name,
        "base_runs": len(case.base),
        "new_runs": len(case.new),
        "by_turns": comparison.paired,
    }


def _case(comparison: Comparison) -> dict[str, object]:
    case = comparison.case
    return {
        **_sides(comparison),
        "base_commits": _commits(case.base),
        "new_commits": _commits(case.new),
        "base_machines": _machines(case.base),
        "new_machines": _machines(case.new),
        "remarks": list(case.remarks),
        "metrics": [_metric(metric) for metric in comparison.lines],
    }


def _commits(records: Sequence[RunRecord]) -> list[str]:
    return list(dict.fromkeys(r.environment.commit for r in records if r.environment.commit))


def _machines(records: Sequence[RunRecord]) -> list[str]:
    """The folder of each machine, as `mnist-bench env` names it."""
    return list(dict.fromkeys(machine_name(record.environment) for record in records))


def _metric(metric: MetricComparison) -> dict[str, object]:
    difference = metric.difference
    return {
        "metric": metric.metric.value,
        "per_success": metric.per_success,
        "base": metric.base,
        "new": metric.new,
        "difference": None if difference is None else difference.value,
        "low": None if difference is None else difference.low,
        "high": None if difference is None else difference.high,
        "difference_unit": _unit(metric.metric),
        "verdict": metric.verdict.value,
        "note": metric.note or None,
        "runs_needed": metric.runs_needed,
    }


def _unit(metric: Metric) -> str:
    in_points = metric in (Metric.ACCURACY, Metric.SHARE_REACHED)
    return "percentage points" if in_points else "ratio"


def _gate(findings: Sequence[GateFinding]) -> dict[str, object]:
    outcome = overall_outcome(findings)
    return {
        "outcome": outcome.name.lower(),
        "exit_status": int(outcome),
        "findings": [
            {
                "outcome": finding.outcome.name.lower(),
                "text": finding.text,
                "case": finding.case,
                "metric": None if finding.metric is None else finding.metric.value,
                "difference": finding.difference,
                "bound": finding.bound,
                "allowed": finding.allowed,
                "difference_unit": None if finding.metric is None else _unit(finding.metric),
                "runs_needed": finding.runs_needed,
            }
            for finding in findings
        ],
    }
