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
from bench.analysis.standings import reasons_against
from bench.records.machine_key import MachineKey
from bench.text import printable, shorten

_WIDTH, _NAMES_WIDTH, _RIGHT_MARGIN = 900, 400, 90
_ROW_HEIGHT, _HEAD_HEIGHT = 22, 52
"""Lengths in pixels."""
_AXIS_MARGIN = 1.2
"""Factor by which the axis exceeds the outermost values."""
_LONGEST_NAME = 58
"""Number of characters of a row's name."""
_DIVISIONS = {
    "open": "Open division: any recipe",
    "closed": "Closed division: the reference recipe",
}
_AXIS_NAME = "Time to target, on a logarithmic scale: median and its 95 % interval"


@dataclass(frozen=True, slots=True)
class _ChartRow:
    """A row of the chart."""

    name: str
    """The machine, escaped for XML."""
    details: str
    """The recipe and the set-up, escaped for XML."""
    division: str
    order: tuple[bool, bool, float]
    """Official ones first, then those that take part in a ranking, then the fastest."""
    median_seconds: float
    interval_seconds: tuple[float, float] | None
    """Both ends of the median's 95 % interval; None when the runs do not bound it."""


def draw_chart(entries: Sequence[ResultEntry]) -> str:
    """One row per entry with a time to target, by division, on a logarithmic axis.

    In a division the fastest is at the top; below all others are those that are not official, and
    at the bottom those whose times are not the machine's (`result_warnings.UNRANKED`). A dot is the
    median, a line its 95 % interval.
    """
    rows = [row for entry in entries if (row := _chart_row(entry)) is not None]
    rows.sort(key=lambda row: row.order)
    values = [v for row in rows for v in (row.median_seconds, *(row.interval_seconds or ()))]
    least, most = min(values, default=1.0) / _AXIS_MARGIN, max(values, default=100.0) * _AXIS_MARGIN

    def x_of(seconds: float) -> float:
        share = math.log(seconds / least) / math.log(most / least)
        return _NAMES_WIDTH + share * (_WIDTH - _NAMES_WIDTH - _RIGHT_MARGIN)

    divisions = [name for name in _DIVISIONS if any(row.division == name for row in rows)]
    height = _HEAD_HEIGHT + _ROW_HEIGHT * (len(rows) + len(divisions)) + _ROW_HEIGHT // 2
    middle = (_NAMES_WIDTH + _WIDTH - _RIGHT_MARGIN) // 2
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        'font-family="sans-serif" font-size="12">',
        "<title>Time to target, one row a machine and division: medians in seconds, and their 95 % "
        "intervals</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{middle}" y="14" text-anchor="middle" fill="#444444">{_AXIS_NAME}</text>',
    ]
    for seconds in _ticks(least, most):
        x = f"{x_of(seconds):.1f}"
        lines += [
            f'<line x1="{x}" y1="{_HEAD_HEIGHT - 12}" x2="{x}" y2="{height}" stroke="#dddddd"/>',
            f'<text x="{x}" y="{_HEAD_HEIGHT - 18}" text-anchor="middle">{seconds:g} s</text>',
        ]
    y = _HEAD_HEIGHT
    for division in divisions:
        lines.append(f'<text x="4" y="{y + 4}" font-weight="bold">{_DIVISIONS[division]}</text>')
        for row in rows:
            if row.division == division:
                y += _ROW_HEIGHT
                lines += _draw_row(row, y, x_of)
        y += _ROW_HEIGHT
    return "\n".join([*lines, "</svg>"]) + "\n"


def _chart_row(entry: ResultEntry) -> _ChartRow | None:
    """An entry's row; None when it has no median time to target."""
    summary = entry.benchmark.summary("time_to_target_seconds")
    median, low, high = summary.median, summary.median_low, summary.median_high
    if median is None or median <= 0:
        return None
    record = entry.benchmark.runs[0][1]
    machine = labels.machine_label(record.setup.device_name, MachineKey.of(record.environment))
    details = f"{record.recipe.get('name')} {entry.id}, {labels.label_of_setup(record.setup)}"
    is_official = not any(reasons_against(entry.benchmark))
    is_ranked = result_warnings.ranked(entry.benchmark.records)
    remark = "" if is_official else " (not official)"
    return _ChartRow(
        name=escape(shorten(f"{printable(machine)}{remark}", _LONGEST_NAME)),
        details=escape(printable(details)),
        division=record.division,
        order=(not is_official, not is_ranked, median),
        median_seconds=median,
        interval_seconds=(low, high) if low and high and low > 0 and high > 0 else None,
    )


def _draw_row(row: _ChartRow, y: int, x_of: Callable[[float], float]) -> Iterator[str]:
    """The elements of a row: name, interval, median, and the median in words.

    Args:
        row: what to draw.
        y: height of the row, in pixels from the top.
        x_of: the horizontal place of a time in seconds.
    """
    yield f'<text x="{_NAMES_WIDTH - 12}" y="{y + 4}" text-anchor="end">{row.name}</text>'
    ends = row.interval_seconds or (row.median_seconds, row.median_seconds)
    low, high = (x_of(end) for end in ends)
    if row.interval_seconds is not None:
        yield (
            f'<line x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}" stroke="#3b6ea5" '
            'stroke-width="3"/>'
        )
    yield (
        f'<circle cx="{x_of(row.median_seconds):.1f}" cy="{y}" r="4" fill="#3b6ea5">'
        f"<title>{row.details}</title></circle>"
    )
    words = text.seconds(row.median_seconds)
    # White beneath, so that no line of the axis runs through the letters.
    yield (
        f'<text x="{high + 9:.1f}" y="{y + 4}" stroke="#ffffff" stroke-width="4" '
        f'paint-order="stroke">{words}</text>'
    )


def _ticks(least: float, most: float) -> Iterator[float]:
    """1, 2 and 5 times every power of ten between the two."""
    for power in range(math.floor(math.log10(least)), math.ceil(math.log10(most))):
        for digit in (1, 2, 5):
            # Parsed, not multiplied: 0.1 must be written as 0.1, and a product is rounded.
            seconds = float(f"{digit}e{power}")
            if least <= seconds <= most:
                yield seconds
