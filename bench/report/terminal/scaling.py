"""Scaling studies as tables: one row per number of processes."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from bench.analysis.scaling import CAPTION, HEADINGS, ScalingStudy
from bench.report.terminal.tables import FittedTable, Section, TableColumn

_PRIORITIES = {"runs": 3, "communication": 4, "batch": 2, "speed-up": 1}
"""Columns that a narrow terminal leaves out, the highest number first."""


def scaling(studies: Sequence[ScalingStudy]) -> RenderableType:
    """A table with one section per study."""
    rows: list[tuple[str, ...]] = []
    sections: list[Section] = []
    for study in studies:
        remarks = [Text(line, style="dim") for line in study.remarks]
        title = Text(study.name, style="bold")
        sections.append(Section(len(rows), len(rows) + len(study.points), title, remarks))
        rows += [point.cells for point in study.points]
    fields = [
        TableColumn(
            heading,
            [Text(cell) for cell in cells],
            priority=_PRIORITIES.get(heading, 0),
            justify="right",
        )
        for heading, cells in zip(HEADINGS, zip(*rows, strict=True), strict=True)
    ]
    return FittedTable(fields, sections, CAPTION, "; see --to json")
