"""results/times.svg: each machine's time to target as a dot, its interval as a line.

The file is written as text, without a plotting library: the same records must give the same bytes
on every machine, because `publish --check` compares them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from bench import text
from bench.analysis import labels, result_warnings
from bench.analysis.result_tables import ResultEntry
from bench.text import printable

_WIDTH, _NAMES_WIDTH, _RIGHT_MARGIN = 900, 430, 60
_ROW_HEIGHT, _HEAD_HEIGHT = 20, 40
"""Lengths in pixels."""
_AXIS_MARGIN = 1.2
"""Factor by which the axis exceeds the outermost values."""
_LONGEST_NAME = 66
"""Number of characters of a row's name; the table beside the chart has all of them."""


@dataclass(frozen=True, slots=True)
class _ChartRow:
    """A row of the chart."""

    name: str
    """Escaped for XML."""
    ranked: bool
    """Whether it takes part in the ranking."""
    median_seconds: float
    interval_seconds: tuple[float, float] | None
    """Both ends of the median's 95 % interval; None when the runs do not bound it."""


def draw_chart(entries: Sequence[ResultEntry]) -> str:
    """One row per entry with a time to target, the fastest at the top, on a logarithmic axis.

    At the bottom are those whose times are not the machine's (`result_warnings.UNRANKED`).
    A dot is the median, a line its 95 % interval.
    """
    rows = [row for entry in entries if (row := _chart_row(entry)) is not None]
    rows.sort(key=lambda row: (not row.ranked, row.median_seconds))
    values = [v for row in rows for v in (row.median_seconds, *(row.interval_seconds or ()))]
    least, most = min(values, default=1.0) / _AXIS_MARGIN, max(values, default=100.0) * _AXIS_MARGIN

    def x_of(seconds: float) -> str:
        share = math.log(seconds / least) / math.log(most / least)
        return f"{_NAMES_WIDTH + share * (_WIDTH - _NAMES_WIDTH - _RIGHT_MARGIN):.1f}"

    height = _HEAD_HEIGHT + _ROW_HEIGHT * len(rows) + _ROW_HEIGHT // 2
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        'font-family="sans-serif" font-size="12">',
        "<title>Time to target, one row a machine and division: medians in seconds, and their 95 % "
        "intervals</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for seconds in _ticks(least, most):
        x = x_of(seconds)
        lines += [
            f'<line x1="{x}" y1="{_HEAD_HEIGHT - 12}" x2="{x}" y2="{height}" stroke="#dddddd"/>',
            f'<text x="{x}" y="{_HEAD_HEIGHT - 18}" text-anchor="middle">{seconds:g} s</text>',
        ]
    for number, row in enumerate(rows):
        lines += _draw_row(row, _HEAD_HEIGHT + _ROW_HEIGHT * number, x_of)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _chart_row(entry: ResultEntry) -> _ChartRow | None:
    """An entry's row; None when it has no median time to target."""
    summary = entry.benchmark.summary("time_to_target_seconds")
    median, low, high = summary.median, summary.median_low, summary.median_high
    if median is None or median <= 0:
        return None
    interval = (low, high) if low and high and low > 0 and high > 0 else None
    ranked = result_warnings.ranked(entry.benchmark.records)
    return _ChartRow(_name(entry), ranked, median, interval)


def _draw_row(row: _ChartRow, y: int, x_of: Callable[[float], str]) -> Iterator[str]:
    """The elements of a row: name, interval and median.

    Args:
        row: what to draw.
        y: height of the row, in pixels from the top.
        x_of: the horizontal place of a time in seconds.
    """
    yield f'<text x="{_NAMES_WIDTH - 12}" y="{y + 4}" text-anchor="end">{row.name}</text>'
    if row.interval_seconds is not None:
        low, high = map(x_of, row.interval_seconds)
        yield f'<line x1="{low}" y1="{y}" x2="{high}" y2="{y}" stroke="#3b6ea5" stroke-width="3"/>'
    yield (
        f'<circle cx="{x_of(row.median_seconds)}" cy="{y}" r="4" fill="#3b6ea5">'
        f"<title>{text.seconds(row.median_seconds)}</title></circle>"
    )


def _ticks(least: float, most: float) -> Iterator[float]:
    """1, 2 and 5 times every power of ten between the two."""
    for power in range(math.floor(math.log10(least)), math.ceil(math.log10(most))):
        for digit in (1, 2, 5):
            # Parsed, not multiplied: 0.1 must be written as 0.1, and a product is rounded.
            seconds = float(f"{digit}e{power}")
            if least <= seconds <= most:
                yield seconds


def _name(entry: ResultEntry) -> str:
    record = entry.benchmark.runs[0][1]
    setup = record.setup
    label = labels.label_of_setup(setup)
    name = printable(f"{record.recipe.get('name')} {entry.id}, {label}, {setup.device_name}")
    return escape(name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…")
