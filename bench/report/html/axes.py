"""Axes of the figures: their place in the figure, their scales and ticks, their legend.

Every figure sets its own limits: a record may hold any numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.report.html.captions import LONGEST_NAME
from bench.report.html.drawing import FONT, MUTED, WIDTH, colour_of, new_figure
from bench.report.html.series import SetupSeries
from bench.report.html.ticks import CLOCK_TICKS, clock_tick, count_tick, count_ticks, fitting_ticks
from bench.text import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST_BAR = 1e200
"""Greatest length that is drawn: Matplotlib computes with lengths, and larger ones overflow."""
_LINE_HEIGHT, _MARK_HEIGHT, _SIDE_MARGIN, _PLOT_HEIGHT = 16.0, 25.0, 11.0, 235.0
"""Lengths in CSS pixels: a line of text, the mark below it, the margins, a plot."""
_LEGEND_LINE = 17
"""Height of a line of the legend, in CSS pixels."""


@dataclass(frozen=True, slots=True)
class RowAxes:
    """A figure with one row per set-up: a name and a value, and below them room for a mark."""

    figure: Figure
    axes: Axes
    mark_offset: float
    """Vertical distance from the start of a row, whose height is 1, to its mark."""


def row_axes(
    all_series: Sequence[SetupSeries],
    values: Mapping[int, float],
    format_value: Callable[[float], str],
    legend_lines: int = 0,
) -> RowAxes:
    """A figure with one row per set-up.

    Args:
        all_series: the set-ups, the top row first.
        values: by number of the set-up; written at the right of its row.
        format_value: writes a value for people.
        legend_lines: number of lines to leave free at the foot.
    """
    from matplotlib.transforms import blended_transform_factory

    left, right = 2 / WIDTH, 1 - 2 / WIDTH
    lines = 1 + any(series.detail for series in all_series)
    row_height = lines * _LINE_HEIGHT + _MARK_HEIGHT
    foot = 46.0 + _LEGEND_LINE * legend_lines
    height = 4 + row_height * len(all_series) + foot
    figure = new_figure(height)
    axes = figure.add_axes(
        (
            _SIDE_MARGIN / WIDTH,
            foot / height,
            1 - 2 * _SIDE_MARGIN / WIDTH,
            row_height * len(all_series) / height,
        )
    )
    axes.set_autoscale_on(False)
    axes.set_ylim(len(all_series), 0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    # Horizontal positions are those of the figure, vertical ones those of the rows.
    across = blended_transform_factory(figure.transFigure, axes.transData)
    for row, series in enumerate(all_series):
        value = values.get(series.number)
        value_text = "" if value is None else format_value(value)
        y = row + 11.5 / row_height
        name = shorten(f"{series.number} · {series.name}", LONGEST_NAME - len(value_text))
        axes.text(left, y, name, transform=across)
        axes.text(right, y, value_text, transform=across, ha="right", fontweight="bold")
        detail = shorten(series.detail, LONGEST_NAME)
        y += _LINE_HEIGHT / row_height
        axes.text(left, y, detail, transform=across, color=MUTED, fontsize=FONT - 1.5)
    return RowAxes(figure, axes, 1 - 0.62 * _MARK_HEIGHT / row_height)


def plot_axes(all_series: Sequence[SetupSeries]) -> tuple[Figure, Axes]:
    """A figure with one plot, and below it a legend of these set-ups."""
    return legend_axes(_legend_entries(all_series))


def legend_axes(entries: Sequence[tuple[str, str]]) -> tuple[Figure, Axes]:
    """A figure with one plot and a legend below it: names, each with its colour."""
    foot = 46 + _LEGEND_LINE * len(entries)
    height = 24 + _PLOT_HEIGHT + foot
    figure = new_figure(height)
    axes = figure.add_axes((46 / WIDTH, foot / height, (WIDTH - 58) / WIDTH, _PLOT_HEIGHT / height))
    axes.set_autoscale_on(False)
    axes.grid()
    draw_legend(figure, entries, 1)
    return figure, axes


def name_above(axes: Axes, name: str) -> None:
    """Write the name of the vertical axis above it, where it can be read."""
    axes.set_title(name, fontsize=FONT, color=MUTED, loc="left")


def _legend_entries(all_series: Sequence[SetupSeries]) -> list[tuple[str, str]]:
    """The name of each colour's set-ups, and the colour."""
    names: dict[int, str] = {}
    for series in all_series:
        number = f"{series.number} · " if series.has_own_colour else ""
        name = shorten(f"{number}{series.colour_group}", LONGEST_NAME)
        names.setdefault(series.colour, name if series.colour else "other set-ups")
    return [(name, colour_of(colour)) for colour, name in names.items()]


def draw_legend(figure: Figure, entries: Sequence[tuple[str, str]], columns: int) -> None:
    """Draw names with the dots of their colours at the foot of a figure, in columns."""
    from matplotlib.lines import Line2D

    height = figure.get_size_inches()[1] * 72
    rows = math.ceil(len(entries) / columns)
    for place, (name, colour) in enumerate(entries):
        row, column = divmod(place, columns)
        x = (6 + column * (WIDTH - 4) / columns) / WIDTH
        y = (_LEGEND_LINE * (rows - row) - 10) / height
        dot = Line2D([x], [y], marker="o", markersize=7, color=colour, mew=0, linestyle="")
        figure.add_artist(dot)
        figure.text(x + 10 / WIDTH, y, name, va="center", fontsize=FONT - 0.5)


def set_clock_axis(axes: Axes, which: str, low: float, high: float) -> None:
    """Make the axis ``"x"`` or ``"y"`` a logarithmic one of times in seconds."""
    ticks = fitting_ticks(CLOCK_TICKS, low, high)
    _set_log_axis(axes, which, (low, high), {tick: clock_tick(tick) for tick in ticks})


def set_count_axis(axes: Axes, which: str, low: float, high: float) -> None:
    """Make the axis ``"x"`` or ``"y"`` a logarithmic one of plain numbers."""
    ticks = fitting_ticks(count_ticks(low, high), low, high)
    _set_log_axis(axes, which, (low, high), {tick: count_tick(tick) for tick in ticks})


def _set_log_axis(
    axes: Axes, which: str, limits: tuple[float, float], ticks: Mapping[float, str]
) -> None:
    axes.set(**{f"{which}lim": limits})
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_ticks(list(ticks), list(ticks.values()))
    axis.set_ticks([], minor=True)
