"""The tags of a Markdown page: which of its numbers come from records, and from which.

A tag is a comment that a reader of the page does not see, behind the last of its numbers:
``6.26 s<!-- figures: time_to_target_seconds_median in results/intel-xeon-2-cores -->``.
`bench.verify.figure_requests` reads what it says.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace

from bench.verify.shown_numbers import ShownNumber, find_numbers

_TAG = re.compile(
    r"<!--\s*figures\b(?P<name>(?:(?!<!--|-->)[^:])*):(?P<request>(?:(?!<!--).)*?)-->", re.DOTALL
)
"""It ends before the next comment begins, so that a search takes linear time."""
_BLANKS = re.compile(r"\s*")
_BEGINNING = re.compile(r"<!--\s*figures\b")
_FENCE = re.compile(r"\s*(```|~~~)")
_OWN_BLOCK = re.compile(r"\s*\||#")
"""A row of a table, and a heading: each is a block."""
_NEW_BLOCK = re.compile(r"\s*(?:[-*+]|\d+[.)])\s")
"""An item of a list begins a block."""


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag."""

    line: int
    """The page's line on which it begins, from 1."""
    name: str | None
    """The name by which later tags of the page use its value; None without a name."""
    request: str
    """What the numbers are, on one line."""
    numbers: tuple[ShownNumber, ...]
    """The numbers before it, back to the tag before it or the beginning of the block."""
    problem: str | None = None
    """Why it is no tag; None where it is one."""


@dataclass(frozen=True, slots=True)
class _Block:
    """A paragraph, an item of a list, a heading or a row of a table."""

    line: int
    """The page's line on which it begins, from 1."""
    text: str


def read_tags(page: str) -> list[Tag]:
    """All tags of a Markdown page, in order. Those in blocks of code are none."""
    return [tag for block in _blocks(page) for tag in _tags_of(block)]


def _blocks(page: str) -> Iterator[_Block]:
    lines: list[str] = []
    first, fence = 1, None
    for number, line in enumerate([*page.splitlines(), ""], start=1):
        mark = _FENCE.match(line)
        is_code = mark is not None or fence is not None
        if mark is not None and fence in (None, mark[1]):
            fence = mark[1] if fence is None else None
        is_own = _OWN_BLOCK.match(line) is not None
        ends = is_code or not line.strip() or is_own or _NEW_BLOCK.match(line) is not None
        if ends and lines:
            yield _Block(first, "\n".join(lines))
            lines = []
        if is_code or not line.strip():
            continue
        if is_own:
            yield _Block(number, line)
            continue
        first = first if lines else number
        lines.append(line)


def _tags_of(block: _Block) -> Iterator[Tag]:
    numbers = list(find_numbers(block.text))
    offsets = [number.offset for number in numbers]
    done, line, seen, line_start = 0, block.line, 0, 0
    for beginning in _BEGINNING.finditer(block.text):
        start = beginning.start()
        # From the tag before on: a page may be one line of a million tags.
        line += block.text.count("\n", seen, start)
        line_start = block.text.rfind("\n", seen, start) + 1 or line_start
        seen = start
        if start < done:
            continue
        tag = Tag(line, None, "", ())
        match = _TAG.match(block.text, start)
        if match is None:
            yield replace(tag, problem="the tag has no colon, or no end in its paragraph or row")
            continue
        blanks = _BLANKS.match(block.text, line_start, start)
        if blanks is not None and blanks.end() == start:
            tag = replace(
                tag,
                problem="a tag at the start of a line ends its paragraph: "
                "put it on the line of its last number",
            )
        covered = tuple(numbers[bisect_left(offsets, done) : bisect_left(offsets, start)])
        request = " ".join(match["request"].split())
        yield replace(tag, name=match["name"].strip() or None, request=request, numbers=covered)
        done = match.end()
