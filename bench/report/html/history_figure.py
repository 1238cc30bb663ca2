"""The figure of images a second from commit to commit: a line a machine and set-up."""

from __future__ import annotations

from collections.abc import Sequence

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

MOST_COMMITS = 30
"""Number of commits that a figure has room for: the newest."""
_MOST_NAMED = 8
"""Number of commits of which each has its name below the axis."""


def history(all_series: Sequence[SetupSeries]) -> FigureResult:
    """Images a second at each commit, and which commits changed them."""
    title = "Images per second, by commit"
    found = [
        line
        for line in history_lines(series.benchmark for series in all_series)
        if all(map(_rate, line.points))
    ]
    if not found:
        return MissingFigure(title, "no set-up was measured at two commits of one machine")
    lines = found[:COLOUR_COUNT]
    first_seen: dict[str, HistoryPoint] = {}
    for point in sorted((p for line in lines for p in line.points), key=lambda p: p.started):
        first_seen.setdefault(point.code, point)
    codes = list(first_seen)[-MOST_COMMITS:]
    colours = [colour_of(number) for number in range(1, len(lines) + 1)]
    names = [shorten(printable(line.name), LONGEST_NAME) for line in lines]
    figure, axes = legend_axes(list(zip(names, colours, strict=True)))
    rates = [_rate(point) for line in lines for point in line.points]
    set_count_axis(axes, "y", *log_range(rates))
    axes.set_xlim(-0.5, len(codes) - 0.5)
    every = -(-len(codes) // _MOST_NAMED)
    axes.set_xticks(range(0, len(codes), every), [printable(code) for code in codes[::every]])
    axes.tick_params(axis="x", labelsize=FONT - 2)
    axes.set_xlabel("commit, in the order in which they were measured")
    name_above(axes, "training images per second")
    for line, colour in zip(lines, colours, strict=True):
        shown = [point for point in line.points if point.code in codes]
        xs = [codes.index(point.code) for point in shown]
        axes.plot(xs, [_rate(point) for point in shown], "-o", color=colour, markersize=4)
        for x, point in zip(xs, shown, strict=True):
            if point.change is not None:
                axes.annotate(
                    f"{point.change.value:.2f}×", (x, _rate(point)), (0, 6), color=INK,
                    textcoords="offset points", fontsize=FONT - 2, ha="center",
                )  # fmt: skip
    left_out = len(found) - len(lines)
    caption = (
        "Medians of the completed runs, all of a commit together. A number stands where a commit "
        "changed the training time of an image: by an interval that excludes 1 and, where the two "
        f"commits share no session, by more than the {100 * SESSION_SHIFT:.0f} % by which "
        "sessions of one machine differ. A recipe is known by its name: its values may have "
        f"changed too.{_left_out_note(left_out)}"
    )
    return DrawnFigure("history", title, caption, _described(lines), figure)


def _rate(point: HistoryPoint) -> float:
    """Median images per second, as far as it can be drawn; 0 where it is not known."""
    return min(point.benchmark.summary("images_per_second").median or 0.0, LONGEST_BAR)


def _left_out_note(count: int) -> str:
    return f" {count_of(count, 'line')} with fewer commits left out." if count else ""


def _described(lines: Sequence[HistoryLine]) -> str:
    """Every line and its changes, as text."""
    return ". ".join(
        printable(f"{line.name}: {'; '.join(map(_described_point, line.points))}") for line in lines
    )


def _described_point(point: HistoryPoint) -> str:
    value = f"{point.code} {text.quantity(_rate(point))}"
    change = point.change
    if change is None or change.low is None or change.high is None:
        return value
    return f"{value}, {change.value:.2f} times ({change.low:.2f} to {change.high:.2f}) as many"
