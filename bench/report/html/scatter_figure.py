"""The figure of the two factors of the time to target: images needed, and time per image."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from bench import text
from bench.analysis.metrics import samples_to_target, time_to_target_seconds
from bench.report.html.axes import name_above, plot_axes, set_count_axis
from bench.report.html.captions import describe
from bench.report.html.drawing import FAINT, FONT, MUTED, colour_of
from bench.report.html.figure_result import DrawnFigure, FigureResult, MissingFigure
from bench.report.html.series import COLOUR_COUNT, SetupSeries
from bench.report.html.ticks import CLOCK_TICKS, clock_tick, log_range, thin_out

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def images_by_seconds(all_series: Sequence[SetupSeries]) -> FigureResult:
    """Time to target as its two factors: images needed, and seconds per image."""
    title = "Images needed × seconds per image"
    factors = {series.number: pair for series in all_series if (pair := _median_factors(series))}
    known = [series for series in all_series if series.number in factors]
    if not known:
        return MissingFigure(title, "no run reached the target")
    figure, axes = plot_axes(known)
    x_range = log_range([images for images, _ in factors.values()])
    y_range = log_range([microseconds for _, microseconds in factors.values()])
    set_count_axis(axes, "x", *x_range)
    set_count_axis(axes, "y", *y_range)
    _draw_equal_times(axes, x_range, y_range)
    for series in reversed(known):
        images, microseconds = factors[series.number]
        colour = colour_of(series.colour)
        axes.plot([images], [microseconds], "o", color=colour, markersize=7, alpha=0.9)
    for series in known if len(all_series) <= COLOUR_COUNT else []:
        axes.annotate(
            str(series.number),
            factors[series.number],
            (6, 3),
            textcoords="offset points",
            fontsize=FONT - 1,
        )
    axes.set_xlabel("training images until the target")
    name_above(axes, "microseconds per image")
    caption = (
        "Medians of the runs that reached the target. Further left, a recipe needs fewer images; "
        "further down, a machine or its code needs less time per image, evaluation and data "
        "loading included. Along a grey line the product, the time to target, is constant."
    )

    def both_factors(series: SetupSeries) -> str:
        images, microseconds = factors[series.number]
        return f"{images:,.0f} images at {text.quantity(microseconds)} microseconds each"

    return DrawnFigure("images-by-seconds", title, caption, describe(known, both_factors), figure)


def _median_factors(series: SetupSeries) -> tuple[float, float] | None:
    """Median images to the target and median microseconds per image; None: no run reached it."""
    factors = [
        (samples, seconds / samples)
        for run in series.completed
        if (samples := samples_to_target(run)) and (seconds := time_to_target_seconds(run))
    ]
    if not factors:
        return None
    return median(images for images, _ in factors), median(cost for _, cost in factors) * 1e6


def _draw_equal_times(
    axes: Axes, x_range: tuple[float, float], y_range: tuple[float, float]
) -> None:
    """Lines along which images times microseconds per image is the same time."""
    least, most = x_range[0] * y_range[0] / 1e6, x_range[1] * y_range[1] / 1e6
    times = [seconds for seconds in CLOCK_TICKS if least < seconds < most]
    for seconds in thin_out(times, least, most):
        xs = list(x_range)
        axes.plot(xs, [seconds * 1e6 / x for x in xs], color=FAINT, linewidth=1.4)
        # The label stands where the line leaves the plot, at the top or at the right.
        x = min(max(seconds * 1e6 / y_range[1], x_range[0]), x_range[1])
        axes.annotate(
            clock_tick(seconds), (x, min(seconds * 1e6 / x, y_range[1])), (3, -12), color=MUTED,
            textcoords="offset points", fontsize=FONT - 2, clip_on=True,
        )  # fmt: skip
