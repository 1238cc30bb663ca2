"""The list of the report's figures, in the order of the page.

`bench.analysis` computes what they show; these modules choose places and colours. A figure
shortens long names and leaves out the set-ups that it has no room for: its caption says so, and
the page's table has all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.report.html.bar_figures import (
    fraction_of_peak,
    seconds_spent,
    throughput,
    time_to_target,
)
from bench.report.html.curve_figures import accuracy_over_time, time_by_target
from bench.report.html.drawing import style
from bench.report.html.figure_result import FigureResult
from bench.report.html.history_figure import history
from bench.report.html.scaling_figure import scaling
from bench.report.html.scatter_figure import images_by_seconds
from bench.report.html.series import SetupSeries

_FIGURES = (
    time_to_target,
    accuracy_over_time,
    images_by_seconds,
    throughput,
    history,
    seconds_spent,
    time_by_target,
    scaling,
)


def draw_figures(all_series: Sequence[SetupSeries], root: Path = Path()) -> list[FigureResult]:
    """Every figure, in the order of the page.

    Args:
        all_series: the set-ups to show.
        root: the folder that relative paths of the records start from.
    """
    with style():
        figures = [draw(all_series) for draw in _FIGURES]
        return [*figures, fraction_of_peak(all_series, root)]
