"""Comparisons as JSON: what the tables of `compare` and `ab` say, for another program."""

from __future__ import annotations

import json
from collections.abc import Sequence

from bench.analysis.cases import CaseMatch
from bench.analysis.comparison import Comparison, Metric, MetricComparison
from bench.analysis.gate import GateFinding, verdict


def to_json(
    base: str,
    compared: Sequence[tuple[str, CaseMatch, Sequence[Comparison]]],
    findings: Sequence[GateFinding] | None = None,
) -> str:
    """One object: the base, what was compared with it, and what a gate found.

    A difference is new over base, of accuracies new less base in percentage points. Times are
    seconds, accuracies fractions. What is not known is null. ASCII only.

    Args:
        base: its name.
        compared: each new side's name, how it was matched with the base, and its cases.
        findings: the gate's, where there was one.
    """
    document = {
        "base": base,
        "comparisons": [
            {
                "new": new,
                "cases": [_case(contrast) for contrast in contrasts],
                "only_base": list(matched.missing),
                "only_new": list(matched.added),
            }
            for new, matched, contrasts in compared
        ],
        "gate": None if findings is None else _gate(findings),
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _case(contrast: Comparison) -> dict[str, object]:
    case = contrast.case
    return {
        "name": case.name,
        "base_runs": len(case.base),
        "new_runs": len(case.new),
        "by_turns": contrast.paired,
        "remarks": list(case.remarks),
        "metrics": [_line(line) for line in contrast.lines],
    }


def _line(line: MetricComparison) -> dict[str, object]:
    of = line.difference
    return {
        "metric": line.metric.value,
        "base": line.base,
        "new": line.new,
        "difference": None if of is None else of.value,
        "low": None if of is None else of.low,
        "high": None if of is None else of.high,
        "difference_unit": "percentage points" if line.metric is Metric.ACCURACY else "ratio",
        "verdict": line.verdict.value,
        "note": line.note or None,
        "runs_needed": line.runs_needed,
    }


def _gate(findings: Sequence[GateFinding]) -> dict[str, object]:
    return {
        "outcome": verdict(findings).name.lower(),
        "findings": [{"outcome": one.outcome.name.lower(), "text": one.text} for one in findings],
    }
