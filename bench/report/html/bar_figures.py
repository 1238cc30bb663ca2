"""Figures with one row per set-up: bars, dots and intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench import text
from bench.analysis.metrics import time_to_target_seconds
from bench.analysis.timing_rules import Span, seconds_by_span
from bench.records import sidecars
from bench.report.html.axes import (
    LONGEST_BAR,
    draw_legend,
    row_axes,
    set_clock_axis,
    set_count_axis,
)
from bench.report.html.captions import describe, left_out_note, shown_of, target_name
from bench.report.html.drawing import SPENT, colour_of
from bench.report.html.figure_result import DrawnFigure, FigureResult, MissingFigure
from bench.report.html.series import SetupSeries
from bench.report.html.ticks import log_range
from bench.stats.sums import exact_sum

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_DOTS = 60
"""Greatest number of runs of a set-up that are drawn one by one beside their median."""


def time_to_target(all_series: Sequence[SetupSeries]) -> FigureResult:
    """The median time to target with its interval, and every run."""
    title = f"Time to {target_name(all_series)}"
    medians = _medians(all_series, "time_to_target_seconds")
    known = [series for series in all_series if series.number in medians]
    if not known:
        return MissingFigure(title, "no set-up reached the target in half of its runs")
    shown = shown_of(known)
    rows = row_axes(shown, medians, text.seconds)
    times = [_times_to_target(series) for series in shown]
    low, high = log_range([seconds for times_of_one in times for seconds in times_of_one])
    set_clock_axis(rows.axes, "x", low, high)
    rows.axes.set_xlabel("time since the run's start")
    rows.axes.grid(axis="x")
    for row, (series, run_seconds) in enumerate(zip(shown, times, strict=True)):
        y = row + rows.mark_offset
        colour = colour_of(series.colour)
        _draw_median_interval(rows.axes, series, "time_to_target_seconds", y, high)
        if len(run_seconds) <= MOST_DOTS:
            ys = [y] * len(run_seconds)
            rows.axes.plot(run_seconds, ys, "o", markersize=3.4, alpha=0.45, color=colour, mew=0)
        rows.axes.plot([medians[series.number]], [y], "D", markersize=6, color=colour)
    caption = (
        "Diamond: median of the completed runs; a run that missed the target counts as infinitely "
        "long. Dots: runs. Line: 95 % interval of the median (from 6 runs), dashed "
        "where too few runs reached the target to bound it. Logarithmic scale."
        f"{left_out_note(len(known), 'fastest')}"
    )
    description = describe(shown, lambda series: text.seconds(medians[series.number]))
    return DrawnFigure("time-to-target", title, caption, description, rows.figure)


def _draw_median_interval(
    axes: Axes, series: SetupSeries, column_name: str, y: float, axis_end: float
) -> None:
    """A line over the interval of the median; dashed, to the axis's end, when it has no upper end.

    Draws nothing when the interval is not known.
    """
    summary = series.benchmark.summary(column_name)
    if summary.median_low is None:
        return
    axes.plot(
        [summary.median_low, axis_end if summary.median_high is None else summary.median_high],
        [y, y],
        color=colour_of(series.colour),
        linewidth=2,
        linestyle=(0, (3, 2)) if summary.median_high is None else "-",
    )


def throughput(all_series: Sequence[SetupSeries]) -> FigureResult:
    """Training images per second."""
    title = "Throughput"
    rates = {
        number: min(rate, LONGEST_BAR)
        for number, rate in _medians(all_series, "images_per_second").items()
        if rate
    }
    known = [series for series in all_series if series.number in rates]
    if not known:
        return MissingFigure(title, "no completed run finished an epoch")
    known.sort(key=lambda series: (not series.ranked, -rates[series.number]))
    shown = shown_of(known)
    rows = row_axes(shown, rates, text.quantity)
    low, high = log_range([rate for series in shown for rate in _rates_drawn(series)])
    set_count_axis(rows.axes, "x", low, high)
    rows.axes.set_xlabel("training images per second")
    rows.axes.grid(axis="x")
    for row, series in enumerate(shown):
        y = row + rows.mark_offset
        _draw_median_interval(rows.axes, series, "images_per_second", y, high)
        colour = colour_of(series.colour)
        rows.axes.plot([rates[series.number]], [y], "D", markersize=6, color=colour)
    caption = (
        "Diamond: median of the completed runs. Line: its 95 % interval, from 6 runs. Logarithmic "
        f"scale: a CPU can be seen beside a GPU.{left_out_note(len(known), 'fastest')}"
    )
    description = describe(shown, lambda series: _format_rate(rates[series.number]))
    return DrawnFigure("throughput", title, caption, description, rows.figure)


def _rates_drawn(series: SetupSeries) -> list[float]:
    """The median of a set-up's images per second, and both ends of its interval."""
    summary = series.benchmark.summary("images_per_second")
    drawn = (summary.median, summary.median_low, summary.median_high)
    return [min(rate, LONGEST_BAR) for rate in drawn if rate]


def seconds_spent(all_series: Sequence[SetupSeries]) -> FigureResult:
    """Where each second up to the target went, from the start of the process."""
    title = "Where each second went"
    means = {
        series.number: mean
        for series in all_series
        if (mean := _mean_seconds_by_span(series)) is not None
    }
    known = [series for series in all_series if series.number in means]
    if not known:
        return MissingFigure(title, "no run reached the target")
    shown = shown_of(known)
    totals = {series.number: exact_sum(means[series.number].values()) for series in shown}
    colours = {
        span: colour
        for span, colour in zip(Span, SPENT, strict=True)
        if any(means[series.number][span] for series in shown)
    }
    rows = row_axes(shown, totals, text.seconds, legend_lines=2)
    for row, series in enumerate(shown):
        left, total = 0.0, totals[series.number] or 1.0
        for span, colour in colours.items():
            percent = 100 * means[series.number][span] / total
            y = row + rows.mark_offset
            rows.axes.barh(y, percent, left=left, height=0.22, color=colour, linewidth=0)
            left += percent
    rows.axes.set_xlim(0, 100)
    rows.axes.set_xlabel("share of the time from the process's start to the target, in %")
    names = {span: span.value for span in Span} | {Span.WARMUP: "warm-up, compiling"}
    draw_legend(rows.figure, [(names[span], colour) for span, colour in colours.items()], 3)
    caption = (
        "Mean over the runs that reached the target; at the right the whole time, start-up and "
        "warm-up included. \u201cTime between laps\u201d is the harness's own time."
        f"{left_out_note(len(known), 'fastest')}"
    )

    def percentages(series: SetupSeries) -> str:
        total = totals[series.number] or 1
        spans = means[series.number]
        return ", ".join(f"{span.value} {100 * spans[span] / total:.0f} %" for span in colours)

    return DrawnFigure("seconds-spent", title, caption, describe(shown, percentages), rows.figure)


def fraction_of_peak(all_series: Sequence[SetupSeries], root: Path) -> FigureResult:
    """The share of the device's matrix rate, where that was measured beside the records.

    Args:
        all_series: the set-ups to show.
        root: the folder that relative paths of the records start from.
    """
    title = "Fraction of peak"
    peaks, unreadable = sidecars.read_peak_flops(
        root / path for series in all_series for path, _ in series.runs if path
    )
    unread = "".join(
        f" {text.printable(path.name)} is not a valid measured peak." for path in unreadable
    )
    percentages: dict[int, float] = {}
    for series in all_series:
        rate = series.median("images_per_second")
        peak = sidecars.find_peak_flops(series.runs[0][1], peaks)
        if rate and peak:
            percentage = 100 * rate * sidecars.TRAINING_FLOPS / peak
            percentages[series.number] = min(percentage, LONGEST_BAR)
    if not percentages:
        return MissingFigure(
            title,
            "the matrix-product rate of these devices was not measured (mnist-bench env --peak "
            f"--save measures it and saves it beside the records).{unread}".removesuffix("."),
        )
    known = [series for series in all_series if series.number in percentages]
    known.sort(key=lambda series: (not series.ranked, -percentages[series.number]))
    shown = shown_of(known)
    rows = row_axes(shown, percentages, _format_percentage)
    for row, series in enumerate(shown):
        y, colour = row + rows.mark_offset, colour_of(series.colour)
        rows.axes.barh(y, percentages[series.number], height=0.2, color=colour, linewidth=0)
    rows.axes.set_xlim(0, max(100.0, 1.04 * max(percentages.values())))
    rows.axes.set_xlabel("share of the measured rate of matrix products, in %")
    rows.axes.locator_params(axis="x", nbins=5)
    caption = (
        f"Median images per second, times {sidecars.TRAINING_FLOPS / 1e6:.1f} million floating-"
        "point operations per image, as a share of the fastest matrix product in the same "
        "precision with the same number of threads."
        f"{left_out_note(len(known), 'highest')}{unread}"
    )
    description = describe(shown, lambda series: _format_percentage(percentages[series.number]))
    return DrawnFigure("peak", title, caption, description, rows.figure)


def _medians(all_series: Sequence[SetupSeries], column_name: str) -> dict[int, float]:
    """The medians of a column, by number of the set-up; without those that are not known."""
    medians = ((series.number, series.median(column_name)) for series in all_series)
    return {number: median for number, median in medians if median is not None}


def _times_to_target(series: SetupSeries) -> list[float]:
    """The times to target of the completed runs that reached it, in seconds."""
    times = (time_to_target_seconds(record) for record in series.completed)
    return [seconds for seconds in times if seconds is not None]


def _mean_seconds_by_span(series: SetupSeries) -> dict[Span, float] | None:
    """Mean seconds of each span, over the runs that reached the target; None without such runs."""
    runs = [seconds for run in series.completed if (seconds := seconds_by_span(run))]
    if not runs:
        return None
    return {span: exact_sum(seconds[span] for seconds in runs) / len(runs) for span in Span}


def _format_rate(images_per_second: float) -> str:
    return f"{text.quantity(images_per_second)} images/s"


def _format_percentage(percentage: float) -> str:
    return f"{percentage:.3g} %"
