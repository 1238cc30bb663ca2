"""The figure of images a second from commit to commit: a line a machine and set-up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench import text
from bench.analysis.history import HistoryLine, HistoryPoint, history_lines
from bench.analysis.sessions import SESSION_SHIFT
from bench.report.html.axes import LONGEST_BAR, legend_axes, name_above, set_count_axis
from bench.report.html.captions import LONGEST_NAME
from bench.report.html.drawing import FONT, INK, colour_of
from bench.report.html.figure_result import DrawnFigure, FigureResult, MissingFigure
from bench.report.html.series import COLOUR_COUNT, SetupSeries
from bench.report.html.ticks import log_range
from bench.text import count_of, printable, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_COMMITS = 30
"""Number of commits that a figure has room for: the newest."""
_SHORTEST_MACHINE = 16
"""Characters of a machine's name that a legend shows at least."""
_MOST_NAMED = 8
"""Most names of commits below the axis."""


def history(all_series: Sequence[SetupSeries]) -> FigureResult:
    """Images a second at each commit, and between which commits they changed."""
    title = "Images per second, by commit"
    found = [
        line
        for line in history_lines(series.benchmark for series in all_series)
        if all(map(_rate, line.points))
    ]
    if not found:
        return MissingFigure(title, "no set-up was measured at two commits of one machine")
    in_order = sorted((p for line in found for p in line.points), key=lambda p: p.started)
    all_codes = list(dict.fromkeys(point.code for point in in_order))
    codes = all_codes[-MOST_COMMITS:]
    drawn = [
        (line, points)
        for line in found
        if (points := [point for point in line.points if point.code in codes])
    ][:COLOUR_COUNT]
    colours = [colour_of(number) for number in range(1, len(drawn) + 1)]
    names = [_legend_name(line) for line, _ in drawn]
    figure, axes = legend_axes(list(zip(names, colours, strict=True)))
    set_count_axis(axes, "y", *log_range([_rate(point) for _, points in drawn for point in points]))
    axes.set_xlim(-0.5, len(codes) - 0.5)
    changed = {codes.index(point.code) for _, points in drawn for point in points if point.change}
    named = _named_places(len(codes), changed)
    axes.set_xticks(named, [printable(codes[place]) for place in named])
    axes.tick_params(axis="x", labelsize=FONT - 2)
    axes.set_xlabel("commit, in the order in which they were measured")
    name_above(axes, "training images per second")
    for (_, points), colour in zip(drawn, colours, strict=True):
        _draw_line(axes, points, codes, colour)
    caption = (
        "Medians of the completed runs, all of a commit together. A number is images per second as "
        "a multiple of the commit before. It stands where its interval excludes 1 and, where the "
        f"two commits share no session, by more than the {100 * SESSION_SHIFT:.0f} % by which "
        "sessions of one machine differ; never where torch or a driver changed too, nor where "
        "there are too few runs for an interval. A recipe is known by its name: its values may "
        "change."
        f"{_left_out_note(len(found) - len(drawn), len(all_codes))}"
    )
    description = ". ".join(_described(line, points) for line, points in drawn)
    return DrawnFigure("history", title, caption, description, figure)


def _named_places(count: int, changed: set[int]) -> list[int]:
    """Places of the commits that have their names below the axis: first those of a change.

    Args:
        count: number of commits.
        changed: places where a line changes; the newest of them have names.
    """
    apart = -(-count // _MOST_NAMED)
    named = set(sorted(changed)[-_MOST_NAMED:])
    for place in range(0, count, apart):
        if len(named) < _MOST_NAMED and all(abs(place - other) >= apart for other in named):
            named.add(place)
    return sorted(named)


def _draw_line(
    axes: Axes, points: Sequence[HistoryPoint], codes: Sequence[str], colour: str
) -> None:
    """Draw the points at the places of their commits, with a number at each change."""
    xs = [codes.index(point.code) for point in points]
    axes.plot(xs, list(map(_rate, points)), "-o", color=colour, markersize=4)
    for x, point in zip(xs, points, strict=True):
        if point.change is not None:
            axes.annotate(
                f"{point.change.value:.2f}×", (x, _rate(point)), (0, 6), color=INK,
                textcoords="offset points", fontsize=FONT - 2, ha="center",
            )  # fmt: skip


def _legend_name(line: HistoryLine) -> str:
    """The set-up whole, and as much of the machine as there is room for."""
    setup, machine = printable(line.setup), printable(line.machine)
    room = max(_SHORTEST_MACHINE, LONGEST_NAME - len(setup) - len(" on "))
    return f"{setup} on {shorten(machine, room)}"


def _rate(point: HistoryPoint) -> float:
    """Median images per second, as far as it can be drawn; 0 where it is not known."""
    return min(point.benchmark.summary("images_per_second").median or 0.0, LONGEST_BAR)


def _left_out_note(lines: int, commits: int) -> str:
    note = f" {count_of(lines, 'more line')} left out." if lines else ""
    if commits > MOST_COMMITS:
        note += f" The newest {MOST_COMMITS} of {commits:,} commits."
    return note


def _described(line: HistoryLine, points: Sequence[HistoryPoint]) -> str:
    """A line and its changes, as text."""
    name = f"{line.setup} on {line.machine}"
    return printable(f"{name}: {'; '.join(map(_described_point, points))}")


def _described_point(point: HistoryPoint) -> str:
    value = f"{point.code} {text.quantity(_rate(point))}"
    change = point.change
    if change is None or change.low is None or change.high is None:
        return value
    return f"{value}, {change.value:.2f} times ({change.low:.2f} to {change.high:.2f}) as many"
