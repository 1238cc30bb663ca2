"""A console for any text, and tables that fit the width of the terminal."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TextIO

import rich.box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from bench.report.terminal.sparkline import BLOCKS, PLAIN_BLOCKS
from bench.text import DIFFERENT, MISSING

_PIPE_WIDTH = 140
"""Characters per line of a file or a pipe; by rich's own 80, tables would lose columns."""
_GAP = 2
"""Number of blanks between two columns of a table."""
_ASCII = str.maketrans(
    {MISSING: "-", DIFFERENT: "#", **dict(zip(BLOCKS, PLAIN_BLOCKS, strict=True))}
)
_RULE = rich.box.SIMPLE_HEAD
_ASCII_RULE = rich.box.Box(str(_RULE).replace("─", "-"), ascii=True)


def show(renderable: RenderableType) -> None:
    """Print to stdout."""
    console_for(sys.stdout).print(renderable)


def plain_lines(renderable: RenderableType, width: int) -> list[str]:
    """The lines that `show` prints to a file, in so many columns."""
    stream = io.StringIO()
    # Whatever FORCE_COLOR says.
    _plain_console(stream, width=width, force_terminal=False, color_system=None).print(renderable)
    return stream.getvalue().splitlines()


def _plain_console(stream: TextIO, **options: Any) -> Console:
    return Console(file=stream, highlight=False, markup=False, emoji=False, **options)


def console_for(stream: TextIO) -> Console:
    """A console that prints text as it is; it replaces letters that the stream cannot encode."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
    console = _plain_console(stream)
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = _PIPE_WIDTH
    return console


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column of a table for people."""

    heading: str
    cells: Sequence[Text]
    priority: int = 0
    """A narrow terminal leaves out the column with the highest priority first, that with 1 only
    when all texts are as narrow as they can be; 0 always stays."""
    justify: Literal["left", "right", "center"] = "right"
    narrowest: int | None = None
    """Width to which its text may be wrapped, in characters; None: it is never wrapped."""
    comfortable: int | None = None
    """Width that it keeps while another column can be left out; None: `narrowest`."""

    @property
    def natural(self) -> int:
        """Width without wrapping, in characters."""
        lines = (line for cell in self.cells for line in cell.plain.split("\n"))
        return max(len(self.heading), *map(cell_len, lines), 0)

    @property
    def least(self) -> int:
        """Smallest possible width, in characters."""
        if self.narrowest is None:
            return self.natural
        return min(self.natural, max(self.narrowest, len(self.heading)))

    @property
    def usual(self) -> int:
        """Smallest width while another column can be left out, in characters."""
        return max(self.least, min(self.natural, self.comfortable or 0))


@dataclass(frozen=True, slots=True)
class Section:
    """Rows that belong together."""

    start: int
    """Index of the first row."""
    stop: int
    """Index after the last row."""
    title: Text | None = None
    """Line above the rows; None: no line."""
    remarks: Sequence[Text] = ()
    """Lines below the rows."""


@dataclass(frozen=True, slots=True)
class FittedTable:
    """A table that leaves out its least important columns when it is too wide, and says so."""

    columns: Sequence[TableColumn]
    """All columns, from left to right."""
    sections: Sequence[Section]
    """Parts that cover all rows, in order."""
    caption: str = ""
    """Line below the table; empty: no line."""
    elsewhere: str = "; see report --to csv"
    """Ends the line about columns that are left out: where to see them, or why."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the table as wide as the terminal allows."""
        columns = _fitting(self.columns, options.max_width)
        widths = _widths(columns, options.max_width)
        for section in self.sections:
            if section.start:
                yield Text()
            if section.title is not None:
                yield section.title
            yield _table(columns, widths, section, options.ascii_only)
            yield from section.remarks
        if self.caption:
            caption = Text(self.caption, style="dim")
            yield _plain(caption) if options.ascii_only else caption
        left_out = ", ".join(c.heading for c in self.columns if c not in columns)
        if left_out:
            yield Text(f"Left out: {left_out}{self.elsewhere}.", style="dim")


def _fitting(columns: Sequence[TableColumn], page_width: int) -> list[TableColumn]:
    """The columns that fit on the page; the least important ones are left out first."""
    kept = _leave_out(columns, page_width, lambda column: column.usual, least_priority=2)
    return _leave_out(kept, page_width, lambda column: column.least, least_priority=1)


def _leave_out(
    columns: Sequence[TableColumn],
    page_width: int,
    width: Callable[[TableColumn], int],
    least_priority: int,
) -> list[TableColumn]:
    """The columns that fit on the page with these widths, and those below a priority."""
    kept = list(columns)
    while sum(width(column) + _GAP for column in kept) - _GAP > page_width:
        last = max(kept, key=lambda column: column.priority)
        if last.priority < least_priority:
            break
        kept.remove(last)
    return kept


def _widths(columns: Sequence[TableColumn], page_width: int) -> list[int] | None:
    """The width of each column; wrapped ones share what is spare. None: the page is too narrow."""
    spare = page_width + _GAP - sum(column.least + _GAP for column in columns)
    if spare < 0:
        return None
    widths = []
    for column in columns:
        more = min(spare, column.natural - column.least)
        widths.append(column.least + more)
        spare -= more
    return widths


def _table(
    columns: Sequence[TableColumn], widths: list[int] | None, section: Section, ascii_only: bool
) -> Table:
    table = Table(
        box=_ASCII_RULE if ascii_only else _RULE,
        show_edge=False,
        pad_edge=False,
        padding=(0, _GAP - 1, 0, 0),
        header_style="bold",
    )
    for index, column in enumerate(columns):
        table.add_column(
            column.heading,
            justify=column.justify,
            overflow="fold",
            width=widths[index] if widths else None,
        )
    for row in range(section.start, section.stop):
        cells = [column.cells[row] for column in columns]
        table.add_row(*(_plain(cell) if ascii_only else cell for cell in cells))
    return table


def _plain(cell: Text) -> Text:
    copy = cell.copy()
    copy.plain = copy.plain.translate(_ASCII)
    return copy
