"""Scaling studies as JSON for a program, and as Markdown for people."""

from __future__ import annotations

import json
from collections.abc import Sequence

from bench.analysis.scaling import CAPTION, HEADINGS, ScalingStudy, scaling_rows
from bench.report.results_page import code


def to_json(studies: Sequence[ScalingStudy]) -> str:
    """A list, an object a study; see `bench.analysis.scaling.scaling_rows`. ASCII only."""
    return json.dumps(list(scaling_rows(studies)), indent=2, allow_nan=False) + "\n"


def to_markdown(studies: Sequence[ScalingStudy]) -> str:
    """A table a study, under its name; what a record says stands in code spans, where it is inert.

    In a column whose heading is empty: what is to be kept in mind of that line.
    """
    parts = []
    for study in studies:
        lines = [f"### {code(study.name)}", "", _line(HEADINGS)]
        lines.append(_line([*("---:" for _ in HEADINGS[1:]), "---"]))
        lines += [_line(point.cells) for point in study.points]
        lines += ["", *study.remarks, ""]
        parts.append("\n".join(lines))
    text = "\n".join([*parts, CAPTION, ""])
    # What could be no UTF-8 file: half of a pair of surrogates, in a record's text.
    return text.encode("utf-8", "replace").decode("utf-8")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
