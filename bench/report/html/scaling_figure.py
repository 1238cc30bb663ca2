"""The figure of scaling efficiency: throughput per process, by number of processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.analysis.scaling import ScalingMode, ScalingStudy
from bench.analysis.scaling_studies import NOTHING, scaling_studies
from bench.report.html.axes import LONGEST_BAR, name_above, plot_axes
from bench.report.html.drawing import GROUND, MUTED, colour_of
from bench.report.html.figure_result import DrawnFigure, FigureResult, MissingFigure
from bench.report.html.series import SetupSeries
from bench.text import count_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def scaling(all_series: Sequence[SetupSeries]) -> FigureResult:
    """Throughput per process, as a share of that with the fewest processes."""
    title = "Scaling efficiency"
    studies = scaling_studies([series.benchmark for series in all_series])
    if not studies:
        return MissingFigure(title, NOTHING)
    first_series = [all_series[study.first] for study in studies]
    figure, axes = plot_axes(list({series.number: series for series in first_series}.values()))
    highest = 0.0
    for series, study in zip(first_series, studies, strict=True):
        _draw_study(axes, study, colour_of(series.colour), str(series.number))
        highest = max(highest, *(100 * point.efficiency.value for point in study.points))
    counts = sorted({point.processes for study in studies for point in study.points})
    axes.set_xlim(counts[0] / 1.15, counts[-1] * 1.15)
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.axhline(100, color=MUTED, linewidth=1, linestyle=(0, (4, 2)))
    axes.set_ylim(0, max(110.0, 1.05 * min(highest, LONGEST_BAR)))
    axes.set_xlabel("processes")
    name_above(axes, "images per second and process")
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:.0f} %")
    caption = (
        "Images per second and process, as a share of the value with the fewest processes, with "
        "the 95 % interval where there are enough runs. Dashed: twice the processes train twice "
        "the images per second. Solid: the same recipe (strong scaling); dotted: the same batch "
        "per process (weak scaling). Thin: Amdahl's law, fitted. Hollow: more threads than cores. "
        "The number at the end of a line is its set-up with the fewest processes."
    )
    descriptions = (
        f"{series.number} {series.full_name}, {study.mode} scaling: {_describe_study(study)}"
        for series, study in zip(first_series, studies, strict=True)
    )
    return DrawnFigure("scaling", title, caption, "; ".join(descriptions) + ".", figure)


def _draw_study(axes: Axes, study: ScalingStudy, colour: str, number: str) -> None:
    """A study's points with their intervals, and the law that was fitted to them.

    Its number stands at the end of the line, because set-ups of one recipe and device share a
    colour.
    """
    processes = [point.processes for point in study.points]
    percents = [100 * point.efficiency.value for point in study.points]
    line_style = "-" if study.mode is ScalingMode.STRONG else (0, (1, 2))
    axes.plot(processes, percents, color=colour, linewidth=1.8, linestyle=line_style)
    for point, percent in zip(study.points, percents, strict=True):
        low, high = point.efficiency.low, point.efficiency.high
        if low is not None and high is not None:
            ends = [100 * low, min(100 * high, LONGEST_BAR)]
            axes.plot([point.processes] * 2, ends, color=colour, linewidth=1.2, alpha=0.6)
        face = GROUND if point.oversubscribed else colour
        axes.plot(
            [point.processes], [percent], "o", color=colour, markerfacecolor=face, markersize=5
        )
    end = processes[-1], percents[-1]
    axes.annotate(number, end, (7, 0), textcoords="offset points", va="center", color=colour)
    if study.fit is not None:
        first, last = processes[0], processes[-1]
        counts = [first * (last / first) ** (step / 40) for step in range(41)]
        shares = [study.fit.speedup(n) * first / n / study.fit.speedup(first) for n in counts]
        percents = [100 * share for share in shares]
        axes.plot(counts, percents, color=colour, linewidth=0.8, alpha=0.7)


def _describe_study(study: ScalingStudy) -> str:
    points = ", ".join(
        f"{100 * point.efficiency.value:.0f} % with {count_of(point.processes, 'process')}"
        for point in study.points
    )
    if study.fit is None:
        return points
    return f"{points}, serial fraction {100 * study.fit.serial_fraction.value:.1f} %"
