"""A gate's findings as Markdown, for the summary page of a CI job."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.analysis.gate import GateFinding, overall_outcome
from bench.report.markdown_text import cell, code, table_row


def to_markdown(
    names: Sequence[str], findings: Sequence[GateFinding], remarks: Iterable[str] = ()
) -> str:
    """A title, a table with one row per finding, and the remarks about what was compared.

    All name what the user or records say, which may be anything: these are code spans.

    Args:
        names: the base's name, then those of the new sides.
        findings: of all sides together.
        remarks: what to list below them.
    """
    base, *others = map(code, names)
    sides = f"{', '.join(others)} against {base}"
    title = f"### mnist-bench gate: {overall_outcome(findings).name.lower()}, {sides}"
    rows = [table_row([finding.outcome.name.lower(), cell(finding.text)]) for finding in findings]
    lines = [title, "", "| outcome | what |", "| --- | --- |", *rows]
    items = [f"- {code(remark)}" for remark in remarks]
    return "\n".join([*lines, "", *items] if items else lines) + "\n"
