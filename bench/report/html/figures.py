"""The figures of a report: each drawn from the records, or left out with the reason.

What they show is computed by `bench.analysis`; here it only gets places and colours. Names are
shortened, and set-ups for which a figure has no room are left out: the caption says so, and the
table of the page has all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench import text
from bench.analysis.metrics import time_to_target_seconds
from bench.analysis.scaling import ScalingMode, ScalingStudy
from bench.analysis.scaling_studies import NOTHING, scaling_studies
from bench.analysis.timing_rules import Span, seconds_by_span
from bench.records import sidecars
from bench.records.schema import Status
from bench.report.html import curves
from bench.report.html.curves import curve_points, seconds_to
from bench.report.html.drawing import (
    ACCENT,
    FAINT,
    FONT,
    GROUND,
    INK,
    MUTED,
    SPENT,
    WIDTH,
    colour_of,
    new_figure,
    style,
)
from bench.report.html.series import COLOURS, SetupSeries
from bench.stats.summary import MISSED, summarize
from bench.text import count_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

MOST_ROWS = 12
"""Set-ups a figure with a row each has room for."""
MOST_LINES = 150
"""Runs that are drawn one by one; of more, each set-up's median is."""
MOST_DOTS = 60
"""Runs of a set-up that are drawn one by one beside their median."""
_LINE, _MARK, _SIDE, _PLOT = 16.0, 25.0, 11.0, 235.0
_LETTERS = 56
"""Of a name in a figure."""
_LONGEST_BAR = 1e200
"""Matplotlib computes with the lengths it draws, and a record may hold any numbers."""
_LEAST_ACCURACY = 0.9
_ACCURACY_TICKS = (0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.997, 0.998, 0.999)
TARGETS = tuple(round(0.980 + 0.001 * step, 3) for step in range(17))
"""Where `time_by_target` places the target."""
FEWEST_EVALUATIONS = 5
"""A run, from which its curve says when it stood where."""
_CLOCK_TICKS = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30),
    *(60, 120, 300, 600, 1200, 1800, 3600, 7200, 18_000, 36_000, 86_400),
)


@dataclass(frozen=True, slots=True)
class DrawnFigure:
    """A figure and what is to be said of it."""

    name: str
    """Letters and hyphens: the file's of --plots."""
    title: str
    caption: str
    description: str
    """For those who do not see it."""
    figure: Figure


@dataclass(frozen=True, slots=True)
class MissingFigure:
    """A figure that there is no data for."""

    title: str
    reason: str
    """Goes on from the title, without a full stop."""


FigureResult = DrawnFigure | MissingFigure


def draw_figures(series: Sequence[SetupSeries], root: Path = Path()) -> list[FigureResult]:
    """Every figure, in the order of the page.

    Args:
        series: what is shown.
        root: the folder that the records' paths start from, where they are relative.
    """
    with style():
        return [*(make(series) for make in _FIGURES), fraction_of_peak(series, root)]


# --- A row a set-up


def time_to_target(series: Sequence[SetupSeries]) -> FigureResult:
    """The median time to target with its interval, and every run."""
    title = f"Time to {target_name(series)}"
    known = [one for one in series if one.number_of("time_to_target_seconds_median") is not None]
    if not known:
        return MissingFigure(title, "in no set-up did half of the runs reach the target")
    shown = known[:MOST_ROWS]
    figure, axes, mark = _row_axes(shown, "time_to_target_seconds_median", text.seconds)
    times = [_times(one) for one in shown]
    everything = [t for group in times for t in group]
    low, high = _log_range(everything)
    _clock_axis(axes, "x", low, high)
    axes.grid(axis="x")
    for row, (one, group) in enumerate(zip(shown, times, strict=True)):
        colour, y = colour_of(one.colour), row + mark
        middle = one.number_of("time_to_target_seconds_median")
        ends = [one.number_of(f"time_to_target_seconds_median_{end}") for end in ("low", "high")]
        assert middle is not None
        if ends[0] is not None:
            axes.plot(
                [ends[0], high if ends[1] is None else ends[1]],
                [y, y],
                color=colour,
                linewidth=2,
                linestyle="-" if ends[1] is not None else (0, (3, 2)),
            )
        if len(group) <= MOST_DOTS:
            axes.plot(group, [y] * len(group), "o", markersize=3.4, alpha=0.45, color=colour, mew=0)
        axes.plot([middle], [y], "D", markersize=6, color=colour)
    caption = (
        "Diamond: median of the completed runs, one that missed counting as infinitely long. "
        "Dots: runs. Bar: 95 % interval of the median (Kaplan-Meier, from 6 runs), dashed where "
        f"too few runs reached the target to bound it. Logarithmic scale.{_rest(known, 'fastest')}"
    )
    return DrawnFigure("time-to-target", title, caption, _listed(shown, _clock_of), figure)


def throughput(series: Sequence[SetupSeries]) -> FigureResult:
    """Training images a second."""
    title = "Throughput"
    known = [one for one in series if one.number_of("images_per_second_median")]
    if not known:
        return MissingFigure(title, "no completed run trained an epoch to its end")
    known.sort(key=lambda one: -(one.number_of("images_per_second_median") or 0))
    shown = known[:MOST_ROWS]
    figure, axes, mark = _row_axes(
        shown, "images_per_second_median", lambda rate: f"{text.quantity(rate)} images/s"
    )
    highest = 0.0
    for row, one in enumerate(shown):
        rate = min(one.number_of("images_per_second_median") or 0.0, _LONGEST_BAR)
        low, high = (one.number_of(f"images_per_second_{end}") for end in ("low", "high"))
        axes.barh(row + mark, rate, height=0.2, color=colour_of(one.colour), linewidth=0)
        highest = max(highest, rate)
        if low is not None and high is not None:
            axes.plot(
                [max(low, 0), min(high, 2 * _LONGEST_BAR)],
                [row + mark] * 2,
                color=INK,
                linewidth=1.4,
            )
            highest = max(highest, min(high, 1.5 * rate))
    axes.set_xlim(0, 1.04 * highest)
    axes.set_xlabel("training images a second")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.locator_params(axis="x", nbins=5)
    caption = (
        "Bar: median of the completed runs. Line: 95 % interval of the mean, from 3 runs."
        f"{_rest(known, 'fastest')}"
    )

    def rate_of(one: SetupSeries) -> str:
        return f"{text.quantity(one.number_of('images_per_second_median') or 0)} images/s"

    return DrawnFigure("throughput", title, caption, _listed(shown, rate_of), figure)


def seconds_spent(series: Sequence[SetupSeries]) -> FigureResult:
    """Where each second up to the target went, from the start of the process."""
    title = "Where each second went"
    runs = [(one, [s for run in one.completed if (s := seconds_by_span(run))]) for one in series]
    known = [(one, found) for one, found in runs if found]
    if not known:
        return MissingFigure(title, "no run reached the target")
    shown = known[:MOST_ROWS]
    means = [
        {item: sum(run[item] for run in found) / len(found) for item in Span} for _, found in shown
    ]
    totals = {one.number: sum(mean.values()) for (one, _), mean in zip(shown, means, strict=True)}
    coloured = zip(Span, SPENT, strict=True)
    items = {item: colour for item, colour in coloured if any(mean[item] for mean in means)}
    figure, axes, mark = _row_axes([one for one, _ in shown], totals, text.seconds, below=2)
    for row, mean in enumerate(means):
        left, total = 0.0, sum(mean.values()) or 1.0
        for item, colour in items.items():
            share = 100 * mean[item] / total
            axes.barh(row + mark, share, left=left, height=0.22, color=colour, linewidth=0)
            left += share
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the time from the process's start to the target, in %")
    names = {item: item.value for item in Span} | {Span.WARMUP: "warm-up, compiling"}
    _legend(figure, [(names[item], colour) for item, colour in items.items()], 3)
    caption = (
        "Of the runs that reached the target, on average; at the right their whole time, start-up "
        "and warm-up included. \u201cBetween\u201d is what the harness took between two laps."
        f"{_rest([one for one, _ in known], 'fastest')}"
    )
    shares = {
        one.number: ", ".join(
            f"{item.value} {100 * mean[item] / (totals[one.number] or 1):.0f} %" for item in items
        )
        for (one, _), mean in zip(shown, means, strict=True)
    }
    described = _listed([one for one, _ in shown], lambda one: shares[one.number])
    return DrawnFigure("seconds-spent", title, caption, described, figure)


def _row_axes(
    series: Sequence[SetupSeries],
    values: str | dict[int, float],
    shown: Callable[[float], str],
    below: int = 0,
) -> tuple[Figure, Axes, float]:
    """A figure with room for a mark below each set-up's name; the value stands at its right.

    Returns:
        The figure, its axes, and how far below a row's start, of its 1, the mark belongs.
    """
    from matplotlib.transforms import blended_transform_factory

    left, right = 2 / WIDTH, 1 - 2 / WIDTH
    lines = 1 + any(one.detail for one in series)
    high = lines * _LINE + _MARK
    room = 46.0 + 17 * below
    height = 4 + high * len(series) + room
    figure = new_figure(height)
    axes = figure.add_axes(
        (_SIDE / WIDTH, room / height, 1 - 2 * _SIDE / WIDTH, high * len(series) / height)
    )
    axes.set_autoscale_on(False)
    axes.set_ylim(len(series), 0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    across = blended_transform_factory(figure.transFigure, axes.transData)
    for row, one in enumerate(series):
        value = one.number_of(values) if isinstance(values, str) else values.get(one.number)
        text = "" if value is None else shown(value)
        y = row + 11.5 / high
        name = _short(f"{one.number} · {one.name}", _LETTERS - len(text))
        axes.text(left, y, name, transform=across)
        axes.text(right, y, text, transform=across, ha="right", fontweight="bold")
        detail = _short(one.detail, _LETTERS)
        size = FONT - 1.5
        axes.text(left, y + _LINE / high, detail, transform=across, color=MUTED, fontsize=size)
    return figure, axes, 1 - 0.62 * _MARK / high


# --- Curves


def accuracy_over_time(series: Sequence[SetupSeries]) -> FigureResult:
    """Every evaluation of every run, on its clock."""
    title = "Accuracy over time"
    curves = [(one, [c for run in one.completed if (c := curve_points(run))]) for one in series]
    curves = [(one, found) for one, found in curves if found]
    if not curves:
        return MissingFigure(title, "no completed run was evaluated on the clock")
    count = sum(len(found) for _, found in curves)
    single = count <= MOST_LINES
    figure, axes = _plot_axes([one for one, _ in curves])
    drawn: list[tuple[float, float]] = []
    for one, found in reversed(curves):  # the fastest on top
        for line in found if single else [_middle(found)]:
            points = [(t, a) for t, a in line if t > 0 and a >= _LEAST_ACCURACY]
            drawn += points
            times, heights = [t for t, _ in points], [_nines(a) for _, a in points]
            colour = colour_of(one.colour)
            alpha = 0.55 if single and count > 12 else 0.9
            axes.plot(times, heights, color=colour, linewidth=1.2, alpha=alpha)
            size = 3.0 if len(points) > 1 else 4.0
            axes.plot(times, heights, "o", markersize=size, color=colour, alpha=alpha, mew=0)
    if not drawn:
        return MissingFigure(
            title, f"no evaluation reached {_LEAST_ACCURACY:.0%}".replace("%", " %")
        )
    _clock_axis(axes, "x", *_log_range([t for t, _ in drawn]))
    axes.set_xlabel("time since the run's start")
    targets = _targets(series)
    lowest = min([a for _, a in drawn] + targets)
    highest = max([a for _, a in drawn] + targets)
    axes.set_ylim(_nines(lowest) - 0.06, _nines(highest) + 0.08)
    shown = [t for t in _ACCURACY_TICKS if lowest - 0.001 <= t <= highest + 0.0003]
    apart = [t for t in shown if all(abs(_nines(t) - _nines(at)) > 0.09 for at in targets)]
    axes.set_yticks([_nines(t) for t in (*apart, *targets)])
    axes.yaxis.set_major_formatter(lambda y, _: f"{100 - 100 * 10**-y:.4g} %")
    for target, label in zip(targets, axes.get_yticklabels()[len(apart) :], strict=True):
        label.set(color=ACCENT, fontweight="bold")
        axes.axhline(_nines(target), color=ACCENT, linewidth=1.2, linestyle=(0, (4, 2)))
    every = (
        "Every evaluation of every completed run"
        if single
        else f"Medians, evaluation by evaluation, of the runs of each set-up ({count:,} are too "
        "many to draw)"
    )
    caption = (
        f"{every}; dashed: the target. Accuracies are spaced by the share still wrong, times by "
        f"their logarithm. Recipes that are evaluated once are dots. Below {_LEAST_ACCURACY:.0%} "
        "nothing is drawn.".replace("%", " %")
    )
    return DrawnFigure("accuracy-over-time", title, caption, caption, figure)


def time_by_target(series: Sequence[SetupSeries]) -> FigureResult:
    """What another target would have taken."""
    title = "Time to target, by the target"
    lines = []
    for one in series:
        curves = [curve_points(run) for run in one.completed]
        if not curves or median(len(found) for found in curves) < FEWEST_EVALUATIONS:
            continue
        medians = [(at, _median_time(curves, at)) for at in TARGETS]
        points = [(100 * at, seconds) for at, seconds in medians if seconds is not None]
        if points:
            lines.append((one, points))
    if not lines:
        return MissingFigure(
            title,
            f"no set-up was evaluated {FEWEST_EVALUATIONS} times a run or more and reached "
            f"{text.target(TARGETS[0])}",
        )
    figure, axes = _plot_axes([one for one, _ in lines])
    for one, points in reversed(lines):
        xs, ys = zip(*points, strict=True)
        axes.plot(xs, ys, color=colour_of(one.colour), linewidth=1.8, drawstyle="steps-mid")
        axes.plot(xs, ys, "o", color=colour_of(one.colour), markersize=3.4, mew=0)
    _clock_axis(axes, "y", *_log_range([y for _, points in lines for _, y in points]))
    axes.set_xlim(100 * TARGETS[0] - 0.05, 100 * TARGETS[-1] + 0.05)
    axes.set_xlabel("target, in %")
    for target in _targets(series):
        if TARGETS[0] <= target <= TARGETS[-1]:
            axes.axvline(100 * target, color=ACCENT, linewidth=1.2, linestyle=(0, (4, 2)))
    caption = (
        "Median over runs of the time to the first evaluation at or above each target, from "
        f"{text.target(TARGETS[0])} to {text.target(TARGETS[-1])}; a line ends where half "
        f"of the runs never got there. Only set-ups evaluated {FEWEST_EVALUATIONS} times a run or "
        "more have such a curve. Dashed: the target."
    )
    ends = {
        one.number: f"{text.seconds(points[0][1])} to {points[0][0]:.4g} %, "
        f"{text.seconds(points[-1][1])} to {points[-1][0]:.4g} %"
        for one, points in lines
    }
    described = _listed([one for one, _ in lines], lambda one: ends[one.number])
    return DrawnFigure("time-by-target", title, caption, described, figure)


def images_by_seconds(series: Sequence[SetupSeries]) -> FigureResult:
    """Time to target as its two factors: images needed, and seconds an image."""
    title = "Images needed × seconds an image"
    found = []
    for one in series:
        factors = [
            (samples, seconds / samples)
            for run in one.completed
            if (samples := curves.samples_to_target(run))
            and (seconds := time_to_target_seconds(run))
        ]
        if factors:
            images, cost = (median(part) for part in zip(*factors, strict=True))
            found.append((one, images, cost * 1e6))
    if not found:
        return MissingFigure(title, "no run reached the target")
    figure, axes = _plot_axes([one for one, _, _ in found])
    left, right = _log_range([images for _, images, _ in found])
    low, high = _log_range([cost for _, _, cost in found])
    _count_axis(axes, "x", left, right)
    _count_axis(axes, "y", low, high)
    _equal_times(axes, (left, right), (low, high))
    for one, images, cost in reversed(found):
        axes.plot([images], [cost], "o", color=colour_of(one.colour), markersize=7, alpha=0.9)
    for one, images, cost in found if len(series) <= COLOURS else []:
        axes.annotate(
            str(one.number), (images, cost), (6, 3), textcoords="offset points", fontsize=FONT - 1
        )
    axes.set_xlabel("training images until the target")
    axes.set_title("microseconds an image", fontsize=FONT, color=MUTED, loc="left")
    caption = (
        "Medians of the runs that reached the target. Left is a recipe that learns from fewer "
        "images; down is a machine, or code, that takes less time for each, evaluation and "
        "reading included. Along a grey line the product, the time to target, is the same."
    )
    told = {
        one.number: f"{images:,.0f} images at {text.quantity(cost)} microseconds each"
        for one, images, cost in found
    }
    described = _listed([one for one, _, _ in found], lambda one: told[one.number])
    return DrawnFigure("images-by-seconds", title, caption, described, figure)


def scaling(series: Sequence[SetupSeries]) -> FigureResult:
    """Throughput of several processes against as many times that of the fewest."""
    title = "Scaling efficiency"
    found = scaling_studies([one.pooled for one in series])
    if not found:
        return MissingFigure(title, NOTHING)
    shown = [series[study.first] for study in found]
    figure, axes = _plot_axes(list({one.number: one for one in shown}.values()))
    highest = 0.0
    for one, study in zip(shown, found, strict=True):
        _efficiencies(axes, study, colour_of(one.colour), str(one.number))
        highest = max(highest, *(100 * point.efficiency.value for point in study.points))
    counts = sorted({point.processes for study in found for point in study.points})
    axes.set_xlim(counts[0] / 1.15, counts[-1] * 1.15)
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.axhline(100, color=MUTED, linewidth=1, linestyle=(0, (4, 2)))
    axes.set_ylim(0, max(110.0, 1.05 * min(highest, _LONGEST_BAR)))
    axes.set_xlabel("processes")
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:.0f} %")
    caption = (
        "Images a second and process, as a share of those with the fewest processes measured, with "
        "the 95 % interval where there are runs enough. Dashed: twice the processes, twice the "
        "images. Solid: the same recipe (strong scaling); dotted: the batch of each process kept "
        "(weak). Thin: Amdahl's law, fitted. Hollow: more threads than cores. The number at a "
        "line's end is the set-up's that it begins with."
    )
    told = (
        f"{one.number} {one.full_name}, {study.mode} scaling: {_told(study)}"
        for one, study in zip(shown, found, strict=True)
    )
    return DrawnFigure("scaling", title, caption, "; ".join(told) + ".", figure)


def _efficiencies(axes: Axes, study: ScalingStudy, colour: str, number: str) -> None:
    """A study's points with their intervals, and the law that was fitted to them.

    Its number stands where it ends: colours are shared by set-ups of one recipe and device.
    """
    xs = [point.processes for point in study.points]
    ys = [100 * point.efficiency.value for point in study.points]
    line = "-" if study.mode is ScalingMode.STRONG else (0, (1, 2))
    axes.plot(xs, ys, color=colour, linewidth=1.8, linestyle=line)
    for point, y in zip(study.points, ys, strict=True):
        of = point.efficiency
        if of.low is not None and of.high is not None:
            ends = [100 * of.low, min(100 * of.high, _LONGEST_BAR)]
            axes.plot([point.processes] * 2, ends, color=colour, linewidth=1.2, alpha=0.6)
        face = GROUND if point.oversubscribed else colour
        axes.plot([point.processes], [y], "o", color=colour, markerfacecolor=face, markersize=5)
    end = xs[-1], ys[-1]
    axes.annotate(number, end, (7, 0), textcoords="offset points", va="center", color=colour)
    if study.fit is not None:
        steps = [xs[0] * (xs[-1] / xs[0]) ** (step / 40) for step in range(41)]
        gains = [study.fit.speedup(n) * xs[0] / n / study.fit.speedup(xs[0]) for n in steps]
        axes.plot(steps, [100 * gain for gain in gains], color=colour, linewidth=0.8, alpha=0.7)


def _told(study: ScalingStudy) -> str:
    points = ", ".join(
        f"{100 * point.efficiency.value:.0f} % with {count_of(point.processes, 'process')}"
        for point in study.points
    )
    if study.fit is None:
        return points
    return f"{points}, serial fraction {100 * study.fit.serial_fraction.value:.1f} %"


def fraction_of_peak(series: Sequence[SetupSeries], root: Path) -> FigureResult:
    """The share of what the device can multiply, where that was measured beside the records."""
    title = "Fraction of peak"
    ceilings, broken = sidecars.read_peak_flops(
        root / path for one in series for path, _ in one.runs if path
    )
    unread = "".join(f" {text.printable(path.name)} is no measured peak." for path in broken)
    shares: dict[int, float] = {}
    for one in series:
        rate = one.number_of("images_per_second_median")
        most = sidecars.find_peak_flops(one.runs[0][1].setup, ceilings)
        if rate and most:
            shares[one.number] = min(100 * rate * sidecars.TRAINING_FLOPS / most, _LONGEST_BAR)
    if not shares:
        return MissingFigure(
            title,
            "the rate at which these devices multiply matrices was not measured (mnist-bench env "
            f"--peak --save does, beside the records).{unread}".removesuffix("."),
        )
    known = sorted(
        (one for one in series if one.number in shares), key=lambda one: -shares[one.number]
    )
    shown = known[:MOST_ROWS]

    def share_of(one: SetupSeries) -> str:
        return f"{shares[one.number]:.3g} %"

    figure, axes, mark = _row_axes(shown, shares, lambda share: f"{share:.3g} %")
    for row, one in enumerate(shown):
        axes.barh(
            row + mark, shares[one.number], height=0.2, color=colour_of(one.colour), linewidth=0
        )
    axes.set_xlim(0, max(100.0, 1.04 * max(shares.values())))
    axes.set_xlabel("of the measured rate of matrix products, %")
    axes.locator_params(axis="x", nbins=5)
    caption = (
        f"Median images a second, {sidecars.TRAINING_FLOPS / 1e6:.1f} million floating-point "
        "operations each, as a share of the fastest matrix product in the same precision, with as "
        f"many threads.{_rest(known, 'nearest to it')}{unread}"
    )
    return DrawnFigure("peak", title, caption, _listed(shown, share_of), figure)


_FIGURES = (
    time_to_target,
    accuracy_over_time,
    images_by_seconds,
    throughput,
    seconds_spent,
    time_by_target,
    scaling,
)


# --- Axes, names, numbers


def _plot_axes(series: Sequence[SetupSeries]) -> tuple[Figure, Axes]:
    """A figure with a plot, and below it the legend."""
    entries = _families(series)
    below = 46 + 17 * len(entries)
    height = 24 + _PLOT + below
    figure = new_figure(height)
    axes = figure.add_axes((46 / WIDTH, below / height, (WIDTH - 58) / WIDTH, _PLOT / height))
    axes.set_autoscale_on(False)  # every figure sets its limits: whatever a record holds fits
    axes.grid()
    _legend(figure, entries, 1)
    return figure, axes


def _families(series: Sequence[SetupSeries]) -> list[tuple[str, str]]:
    """What each colour stands for."""
    entries: dict[int, str] = {}
    for one in series:
        number = f"{one.number} · " if one.has_own_colour else ""
        text = _short(f"{number}{one.family}", _LETTERS)
        entries.setdefault(one.colour, text if one.colour else "other set-ups")
    return [(text, colour_of(colour)) for colour, text in entries.items()]


def _legend(figure: Figure, entries: Sequence[tuple[str, str]], columns: int) -> None:
    """At the foot of the figure, in so many columns."""
    height = figure.get_size_inches()[1] * 72
    rows = math.ceil(len(entries) / columns)
    for place, (label, colour) in enumerate(entries):
        row, column = divmod(place, columns)
        x = (6 + column * (WIDTH - 4) / columns) / WIDTH
        y = (17 * (rows - row) - 10) / height
        figure.add_artist(_dot(x, y, colour))
        figure.text(x + 10 / WIDTH, y, label, va="center", fontsize=FONT - 0.5)


def _dot(x: float, y: float, colour: str) -> Line2D:
    from matplotlib.lines import Line2D as Line

    return Line([x], [y], marker="o", markersize=7, color=colour, mew=0, linestyle="")


def _clock_axis(axes: Axes, which: str, low: float, high: float) -> None:
    """A logarithmic axis of times, its ticks where people would put them."""
    ticks = _ticks(_CLOCK_TICKS, low, high)
    _log_axis(axes, which, low, high, ticks, [_clock_tick(tick) for tick in ticks])


def _count_axis(axes: Axes, which: str, low: float, high: float) -> None:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    nice = [m * 10.0**e for e in range(first, last + 1) for m in (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)]
    ticks = _ticks(nice, low, high)
    _log_axis(axes, which, low, high, ticks, [_count_tick(tick) for tick in ticks])


def _log_axis(
    axes: Axes, which: str, low: float, high: float, ticks: list[float], labels: list[str]
) -> None:
    axes.set(**{f"{which}lim": (low, high)})
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_ticks(ticks, labels)
    axis.set_ticks([], minor=True)


def _ticks(wanted: Sequence[float], low: float, high: float) -> list[float]:
    """Those wanted that lie on the axis; where these are too few, evenly spaced ones."""
    ticks = _thinned([tick for tick in wanted if low <= tick <= high], low, high)
    if len(ticks) >= 3:
        return ticks
    from matplotlib.ticker import MaxNLocator

    even = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in even if low <= tick <= high]


def _thinned(ticks: list[float], low: float, high: float) -> list[float]:
    """As many as can be read: a seventh of the axis apart or more."""
    apart = (math.log(high) - math.log(low)) / 7
    kept: list[float] = []
    for tick in ticks:
        if not kept or math.log(tick / kept[-1]) >= apart:
            kept.append(tick)
    return kept or [math.sqrt(low * high)]


def _log_range(values: Sequence[float]) -> tuple[float, float]:
    """From below the least to above the greatest, and never a range too narrow for ticks."""
    low, high = max(min(values), 1e-6), max(*values, 1e-6)
    pad = max(1.12, (high / low) ** 0.06, math.sqrt(2.2 / (high / low)) if high < 2.2 * low else 1)
    return low / pad, high * pad


def _clock_tick(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.3g} h"
    if seconds < 60:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds % 60 == 0 else f"{text.clock(seconds)} min"


def _count_tick(value: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _equal_times(axes: Axes, across: tuple[float, float], up: tuple[float, float]) -> None:
    """Lines along which images times microseconds an image is the same time."""
    least, most = across[0] * up[0] / 1e6, across[1] * up[1] / 1e6
    for seconds in _thinned([t for t in _CLOCK_TICKS if least < t < most], least, most):
        xs = list(across)
        axes.plot(xs, [seconds * 1e6 / x for x in xs], color=FAINT, linewidth=1.4)
        # Its name where it leaves the plot, at the top or at the right.
        x = min(max(seconds * 1e6 / up[1], across[0]), across[1])
        axes.annotate(
            _clock_tick(seconds), (x, min(seconds * 1e6 / x, up[1])), (3, -12), color=MUTED,
            textcoords="offset points", fontsize=FONT - 2, clip_on=True,
        )  # fmt: skip


def target_name(series: Sequence[SetupSeries]) -> str:
    """``"99.4 %"``, where all set-ups have that target; else ``"target"``."""
    targets = _targets(series)
    return text.target(targets[0]) if len(targets) == 1 else "target"


def _targets(series: Sequence[SetupSeries]) -> list[float]:
    return sorted({one.pooled.target_accuracy for one in series})


def _short(text: str, letters: int) -> str:
    return text if len(text) <= letters else f"{text[: letters - 1].rstrip()}…"


def _times(one: SetupSeries) -> list[float]:
    """The times to target of its runs."""
    return [
        float(seconds)
        for row in one.run_rows
        if isinstance(seconds := row["time_to_target_seconds"], int | float)
        and row["status"] == Status.COMPLETED.value
    ]


def _clock_of(one: SetupSeries) -> str:
    return text.seconds(one.number_of("time_to_target_seconds_median") or 0)


def _rest(known: Sequence[SetupSeries], which: str) -> str:
    if len(known) <= MOST_ROWS:
        return ""
    return f" The {which} {MOST_ROWS} of {len(known)} set-ups; the table has all."


def _listed(series: Sequence[SetupSeries], value: Callable[[SetupSeries], str]) -> str:
    return "; ".join(f"{one.number} {one.full_name}: {value(one)}" for one in series) + "."


def _nines(accuracy: float) -> float:
    """By this accuracies are spaced: each step of 1 leaves a tenth as many wrong."""
    return -math.log10(max(1 - accuracy, 1e-4))


def _middle(curves: Sequence[list[tuple[float, float]]]) -> list[tuple[float, float]]:
    """The median curve, evaluation by evaluation, as far as half of the runs go."""
    length = int(median(len(found) for found in curves))
    there = [[found[i] for found in curves if i < len(found)] for i in range(length)]
    return [(median(t for t, _ in at), median(a for _, a in at)) for at in there]


def _median_time(curves: Sequence[list[tuple[float, float]]], target: float) -> float | None:
    times = [seconds_to(found, target) for found in curves]
    return summarize([MISSED if t is None else t for t in times]).median
