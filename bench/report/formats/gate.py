"""A gate's findings as Markdown: a table for the summary page of a CI job."""

from __future__ import annotations

from collections.abc import Iterable

from bench.analysis.gate import GateFinding


def to_markdown(findings: Iterable[GateFinding]) -> str:
    """A table with one row per finding."""
    rows = [
        f"| {finding.outcome.name.lower()} | {finding.text.replace('|', chr(92) + '|')} |"
        for finding in findings
    ]
    return "\n".join(["| outcome | what |", "| --- | --- |", *rows]) + "\n"
