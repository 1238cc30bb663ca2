"""A gate's findings as Markdown, for the summary page of a CI job."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from bench.analysis.gate import GateFinding, overall_outcome
from bench.report.markdown_text import cell, code, table_row


def to_markdown(
    names: Sequence[str],
    findings: Sequence[GateFinding],
    remarks: Iterable[tuple[str, str]] = (),
) -> str:
    """A title, a table of findings for each set-up, and the remarks about what was compared.

    All name what the user or records say, which may be anything: these are code spans.

    Args:
        names: the base's name, then those of the new sides.
        findings: of all sides together.
        remarks: what to list below them: each set-up's name and a remark about it.
    """
    base, *others = map(code, names)
    sides = f"{', '.join(others)} against {base}"
    lines = [f"### mnist-bench gate: {overall_outcome(findings).name.lower()}, {sides}", ""]
    for case, group in groupby(findings, key=lambda finding: finding.case):
        if case is not None:
            lines += [code(case), ""]
        lines += ["| outcome | what |", "| --- | --- |"]
        lines += [
            table_row([finding.outcome.name.lower(), cell(finding.short_text)]) for finding in group
        ]
        lines.append("")
    cases = {finding.case for finding in findings if finding.case}
    for case, remark in remarks:
        lines.append(f"- {code(remark if cases == {case} else f'{case}: {remark}')}")
    return "\n".join(lines).rstrip("\n") + "\n"
