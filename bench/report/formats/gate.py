"""A gate's findings as Markdown, for the summary page of a CI job."""

from __future__ import annotations

from collections.abc import Iterable

from bench.analysis.gate import GateFinding
from bench.report.markdown_text import cell, code, table_row


def to_markdown(findings: Iterable[GateFinding], remarks: Iterable[str] = ()) -> str:
    """A table with one row per finding, and a list of the remarks about what was compared.

    Both name what records hold, which may be anything: they are code spans.
    """
    rows = [table_row([finding.outcome.name.lower(), cell(finding.text)]) for finding in findings]
    lines = ["| outcome | what |", "| --- | --- |", *rows]
    items = [f"- {code(remark)}" for remark in remarks]
    return "\n".join([*lines, "", *items] if items else lines) + "\n"
