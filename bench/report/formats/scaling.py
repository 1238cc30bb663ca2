"""Scaling studies as JSON for programs, and as Markdown for people."""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.scaling import CAPTION, HEADINGS, ScalingStudy, scaling_rows
from bench.report.formats.json import encode
from bench.report.markdown_text import code, table_row
from bench.text import encodable


def to_json(studies: Sequence[ScalingStudy]) -> str:
    """A list with one object per study; see `bench.analysis.scaling.scaling_rows`."""
    return encode(list(scaling_rows(studies)))


def to_markdown(studies: Sequence[ScalingStudy]) -> str:
    """One table per study, under its name, and its remarks below it."""
    parts = []
    for study in studies:
        lines = [f"### {code(study.name)}", "", table_row(HEADINGS)]
        lines.append(table_row(["---:"] * len(HEADINGS)))
        lines += [table_row(point.cells) for point in study.points]
        lines += ["", *study.remarks, ""]
        parts.append("\n".join(lines))
    return encodable("\n".join([*parts, CAPTION, ""]))
