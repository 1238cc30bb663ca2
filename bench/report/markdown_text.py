"""Text of records in Markdown, where nothing that it says takes effect."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bench.text import MISSING, printable


def code(text: str) -> str:
    """The text as a code span on one line: Markdown does not interpret it."""
    line = printable(text) or " "
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    # A backtick at an end needs a blank beside it; Markdown removes one blank at both ends.
    blank = " " if line[0] in "` " or line[-1] in "` " else ""
    return f"{fence}{blank}{line}{blank}{fence}"


def cell(value: object) -> str:
    """A record's value as a cell of a table; a dash when it is None."""
    if value is None:
        return MISSING
    # Markdown readers disagree about a backslash before a pipe, so that there must be none.
    span = re.sub(r"\\(?=\|)", r"\\ ", code(str(value)))
    return span.replace("|", "\\|")


def table_row(cells: Sequence[str]) -> str:
    """A row of a table, from cells that are Markdown."""
    return f"| {' | '.join(cells)} |"
