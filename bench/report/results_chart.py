"""results/times.svg: every published time to target as a dot, its interval as a line.

Written as text rather than by a plotting library: the same records must give the same file
wherever it is made, or `publish --check` could compare nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from bench import text
from bench.analysis import labels
from bench.analysis.columns import Row
from bench.analysis.result_tables import ResultEntry
from bench.analysis.rows import benchmark_row
from bench.text import printable

_WIDTH, _NAMES, _MARGIN, _LINE, _HEAD = 900, 430, 60, 20, 40
"""Pixels: of the picture, its names and its right margin; the height of a row and of the head."""
_ROOM = 1.2
"""What the axis goes beyond the outermost value, as a factor."""
_LONGEST_NAME = 66
"""Letters; the table beside the picture has all of them."""


def draw_chart(found: Sequence[ResultEntry]) -> str:
    """A row an entry with a time to target, the fastest at the top, on a logarithmic axis.

    A dot is the median, a line its 95 % interval where the runs bound it: of runs that missed the
    target, a mean and its interval would not exist.
    """
    rows = [(entry, benchmark_row(entry.benchmark)) for entry in found]
    timed = [
        (entry, float(median), _interval(row))
        for entry, row in rows
        if isinstance(median := row["time_to_target_seconds_median"], int | float) and median > 0
    ]
    timed.sort(key=lambda row: row[1])
    shown = [end for _, median, ends in timed for end in (median, *ends)]
    least, most = min(shown, default=1.0) / _ROOM, max(shown, default=100.0) * _ROOM

    def across(seconds: float) -> str:
        share = math.log(seconds / least) / math.log(most / least)
        return f"{_NAMES + share * (_WIDTH - _NAMES - _MARGIN):.1f}"

    height = _HEAD + _LINE * len(timed) + _LINE // 2
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        'font-family="sans-serif" font-size="12">',
        "<title>Time to target of every row that reached it: medians in seconds, and their 95 % "
        "intervals</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for seconds in _ticks(least, most):
        x = across(seconds)
        lines += [
            f'<line x1="{x}" y1="{_HEAD - 12}" x2="{x}" y2="{height}" stroke="#dddddd"/>',
            f'<text x="{x}" y="{_HEAD - 18}" text-anchor="middle">{seconds:g} s</text>',
        ]
    for number, (entry, median, ends) in enumerate(timed):
        y = _HEAD + _LINE * number
        lines.append(f'<text x="{_NAMES - 12}" y="{y + 4}" text-anchor="end">{_name(entry)}</text>')
        if ends:
            low, high = map(across, ends)
            lines.append(
                f'<line x1="{low}" y1="{y}" x2="{high}" y2="{y}" stroke="#3b6ea5" '
                'stroke-width="3"/>'
            )
        lines.append(
            f'<circle cx="{across(median)}" cy="{y}" r="4" fill="#3b6ea5">'
            f"<title>{text.seconds(median)}</title></circle>"
        )
    return "\n".join([*lines, "</svg>"]) + "\n"


def _interval(row: Row) -> tuple[float, ...]:
    """Both ends of the median's interval, or nothing where the runs do not bound it."""
    ends = [row[f"time_to_target_seconds_median_{end}"] for end in ("low", "high")]
    known = tuple(float(end) for end in ends if isinstance(end, int | float) and end > 0)
    return known if len(known) == len(ends) else ()


def _ticks(least: float, most: float) -> Iterator[float]:
    """1, 2 and 5 times every power of ten between the two."""
    for power in range(math.floor(math.log10(least)), math.ceil(math.log10(most))):
        for digit in (1, 2, 5):
            # Not a product with a rounded power: 0.1 is to be written as it is.
            seconds = float(f"{digit}e{power}")
            if least <= seconds <= most:
                yield seconds


def _name(entry: ResultEntry) -> str:
    record = entry.benchmark.runs[0][1]
    setup = record.setup
    set_up = labels.label_of_setup(setup)
    text = printable(f"{record.recipe.get('name')} {entry.id}, {set_up}, {setup.device_name}")
    return escape(text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…")
