"""Figures of accuracy against time: how accurate a run was when, and when it reached a target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from bench import text
from bench.report.html.axes import name_above, plot_axes, set_clock_axis
from bench.report.html.captions import describe, targets_of
from bench.report.html.curves import Curve, curve_points, seconds_to
from bench.report.html.drawing import ACCENT, colour_of
from bench.report.html.figure_result import DrawnFigure, FigureResult, MissingFigure
from bench.report.html.series import SetupSeries
from bench.report.html.ticks import log_range
from bench.stats.summary import MISSED, summarize

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LINES = 150
"""Greatest number of runs that are drawn one by one; beyond it, each set-up's median is drawn."""
TARGETS = tuple(round(0.980 + 0.001 * step, 3) for step in range(17))
"""Target accuracies that `time_by_target` compares, as fractions."""
FEWEST_EVALUATIONS = 5
"""Number of evaluations from which a run's curve says when it reached which accuracy."""
_LEAST_ACCURACY = 0.9
_ACCURACY_TICKS = (0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.997, 0.998, 0.999)
_DASHED = (0, (4, 2))


@dataclass(frozen=True, slots=True)
class _SeriesCurves:
    """A set-up and the curves of its completed runs."""

    series: SetupSeries
    curves: list[Curve]
    """One curve per run that was evaluated on the clock."""


def accuracy_over_time(all_series: Sequence[SetupSeries]) -> FigureResult:
    """Every evaluation of every run, on the run's clock."""
    title = "Accuracy over time"
    known = [entry for series in all_series if (entry := _curves_of(series)).curves]
    if not known:
        return MissingFigure(title, "no completed run was evaluated on the clock")
    count = sum(len(entry.curves) for entry in known)
    one_by_one = count <= MOST_LINES
    figure, axes = plot_axes([entry.series for entry in known])
    alpha = 0.55 if one_by_one and count > 12 else 0.9
    drawn: Curve = []
    for entry in reversed(known):  # the fastest on top
        for curve in entry.curves if one_by_one else [_median_curve(entry.curves)]:
            drawn += _draw_curve(axes, curve, colour_of(entry.series.colour), alpha)
    if not drawn:
        return MissingFigure(
            title, f"no evaluation reached {_LEAST_ACCURACY:.0%}".replace("%", " %")
        )
    set_clock_axis(axes, "x", *log_range([seconds for seconds, _ in drawn]))
    axes.set_xlabel("time since the run's start")
    name_above(axes, "accuracy")
    _set_accuracy_axis(axes, [accuracy for _, accuracy in drawn], targets_of(all_series))
    content = (
        "Every evaluation of every completed run"
        if one_by_one
        else "Medians of each evaluation over the runs of a set-up "
        f"({count:,} runs are too many to draw)"
    )
    caption = (
        f"{content}; dashed: the target. Both scales are logarithmic, the vertical one in the "
        "share of wrong answers. A recipe that is evaluated once is a dot. Accuracies below "
        f"{_LEAST_ACCURACY:.0%} are not drawn.".replace("%", " %")
    )
    return DrawnFigure("accuracy-over-time", title, caption, caption, figure)


def _curves_of(series: SetupSeries) -> _SeriesCurves:
    curves = [curve for run in series.completed if (curve := curve_points(run))]
    return _SeriesCurves(series, curves)


def _draw_curve(axes: Axes, curve: Curve, colour: str, alpha: float) -> Curve:
    """Draw a curve as a line with dots.

    Returns:
        The points that were drawn: those accurate enough.
    """
    points = [(t, a) for t, a in curve if t > 0 and a >= _LEAST_ACCURACY]
    times, heights = [t for t, _ in points], [_nines(a) for _, a in points]
    axes.plot(times, heights, color=colour, linewidth=1.2, alpha=alpha)
    size = 3.0 if len(points) > 1 else 4.0
    axes.plot(times, heights, "o", markersize=size, color=colour, alpha=alpha, mew=0)
    return points


def _set_accuracy_axis(axes: Axes, accuracies: Sequence[float], targets: Sequence[float]) -> None:
    """Limits, ticks and target lines of the vertical axis, which is spaced by `_nines`."""
    lowest = min([*accuracies, *targets])
    highest = max([*accuracies, *targets])
    axes.set_ylim(_nines(lowest) - 0.06, _nines(highest) + 0.08)
    ticks = [
        tick
        for tick in _ACCURACY_TICKS
        if lowest - 0.001 <= tick <= highest + 0.0003
        and all(abs(_nines(tick) - _nines(target)) > 0.09 for target in targets)
    ]
    axes.set_yticks([_nines(tick) for tick in (*ticks, *targets)])
    axes.yaxis.set_major_formatter(lambda y, _: f"{100 - 100 * 10**-y:.4g} %")
    for target, label in zip(targets, axes.get_yticklabels()[len(ticks) :], strict=True):
        label.set(color=ACCENT, fontweight="bold")
        axes.axhline(_nines(target), color=ACCENT, linewidth=1.2, linestyle=_DASHED)


def _nines(accuracy: float) -> float:
    """The place of an accuracy on its axis: each step of 1 leaves a tenth as many wrong."""
    return -math.log10(max(1 - accuracy, 1e-4))


def _median_curve(curves: Sequence[Curve]) -> Curve:
    """The median curve, evaluation by evaluation, as far as half of the runs go."""
    length = int(median(len(curve) for curve in curves))
    points: Curve = []
    for index in range(length):
        at_index = [curve[index] for curve in curves if index < len(curve)]
        points.append((median(t for t, _ in at_index), median(a for _, a in at_index)))
    return points


def time_by_target(all_series: Sequence[SetupSeries]) -> FigureResult:
    """The median time to targets other than the records' own."""
    title = "Time to target, by the target"
    lines = {series.number: line for series in all_series if (line := _times_by_target(series))}
    known = [series for series in all_series if series.number in lines]
    if not known:
        return MissingFigure(
            title,
            f"no set-up was evaluated at least {FEWEST_EVALUATIONS} times per run and reached "
            f"{text.target(TARGETS[0])}",
        )
    figure, axes = plot_axes(known)
    for series in reversed(known):
        percents = [100 * target for target, _ in lines[series.number]]
        times = [seconds for _, seconds in lines[series.number]]
        colour = colour_of(series.colour)
        axes.plot(percents, times, color=colour, linewidth=1.8, drawstyle="steps-mid")
        axes.plot(percents, times, "o", color=colour, markersize=3.4, mew=0)
    all_times = [seconds for line in lines.values() for _, seconds in line]
    set_clock_axis(axes, "y", *log_range(all_times))
    axes.set_xlim(100 * TARGETS[0] - 0.05, 100 * TARGETS[-1] + 0.05)
    axes.set_xlabel("target, in %")
    name_above(axes, "time since the run's start")
    for target in targets_of(all_series):
        if TARGETS[0] <= target <= TARGETS[-1]:
            axes.axvline(100 * target, color=ACCENT, linewidth=1.2, linestyle=_DASHED)
    caption = (
        "Median over runs of the time to the first evaluation at or above each target, from "
        f"{text.target(TARGETS[0])} to {text.target(TARGETS[-1])}; a line ends where half "
        "of the runs missed the target. Only set-ups that are evaluated at least "
        f"{FEWEST_EVALUATIONS} times per run have such a curve. Dashed: the target."
    )

    def first_and_last(series: SetupSeries) -> str:
        ends = lines[series.number][0], lines[series.number][-1]
        return ", ".join(f"{text.seconds(s)} to {100 * target:.4g} %" for target, s in ends)

    return DrawnFigure("time-by-target", title, caption, describe(known, first_and_last), figure)


def _times_by_target(series: SetupSeries) -> list[tuple[float, float]]:
    """Targets that half of the runs reached, each with the median seconds to it.

    Empty when the runs are evaluated too rarely.
    """
    curves = [curve_points(run) for run in series.completed]
    if not curves or median(len(curve) for curve in curves) < FEWEST_EVALUATIONS:
        return []
    medians = ((target, _median_seconds(curves, target)) for target in TARGETS)
    return [(target, seconds) for target, seconds in medians if seconds is not None]


def _median_seconds(curves: Sequence[Curve], target: float) -> float | None:
    """Median time to a target; a run that missed it counts as longer than all others."""
    times = [seconds_to(curve, target) for curve in curves]
    return summarize([MISSED if seconds is None else seconds for seconds in times]).median
