"""Pages for a terminal: a console that takes any text, and tables that fit its width."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TextIO

import rich.box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from bench.report.terminal.sparkline import BLOCKS, PLAIN_BLOCKS
from bench.text import MISSING

_PIPE_WIDTH = 140
"""Columns where the output goes to a file or a pipe: rich would take 80 and leave things out."""
_GAP = 2
"""Blanks between two columns of a table."""
_ASCII = str.maketrans({MISSING: "-", **dict(zip(BLOCKS, PLAIN_BLOCKS, strict=True))})
_RULE = rich.box.SIMPLE_HEAD
_ASCII_RULE = rich.box.Box(str(_RULE).replace("─", "-"), ascii=True)


def show(renderable: RenderableType) -> None:
    """Print to stdout."""
    console_for(sys.stdout).print(renderable)


def console_for(stream: TextIO) -> Console:
    """A console that takes text as it is and stumbles over no letter the stream can't encode."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = _PIPE_WIDTH
    return console


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column of a table for people."""

    heading: str
    cells: Sequence[Text]
    priority: int = 0
    """The highest goes first where the page is too narrow; 0 never goes."""
    justify: Literal["left", "right", "center"] = "right"
    narrowest: int | None = None
    """Blanks it can be narrowed down to by wrapping its text; None: it is never wrapped."""

    @property
    def natural(self) -> int:
        """Blanks it takes unwrapped."""
        lines = (line for cell in self.cells for line in cell.plain.split("\n"))
        return max(len(self.heading), *map(cell_len, lines), 0)

    @property
    def least(self) -> int:
        """Blanks it takes at the narrowest."""
        if self.narrowest is None:
            return self.natural
        return min(self.natural, max(self.narrowest, len(self.heading)))


@dataclass(frozen=True, slots=True)
class Section:
    """Rows that belong together."""

    start: int
    stop: int
    title: Text | None = None
    remarks: Sequence[Text] = ()
    """Below the rows."""


@dataclass(frozen=True, slots=True)
class FittedTable:
    """A table that leaves out its least important columns, and says so, rather than cut any."""

    fields: Sequence[TableColumn]
    sections: Sequence[Section]
    caption: str = ""
    elsewhere: str = "; see report --to csv"
    """Where what is left out can be seen."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it as wide as the page allows."""
        fields = _fitting(self.fields, options.max_width)
        widths = _widths(fields, options.max_width)
        for section in self.sections:
            if section.start:
                yield Text()
            if section.title is not None:
                yield section.title
            yield _table(fields, widths, section, options.ascii_only)
            yield from section.remarks
        if self.caption:
            yield Text(self.caption, style="dim")
        left_out = ", ".join(field.heading for field in self.fields if field not in fields)
        if left_out:
            yield Text(f"Left out: {left_out}{self.elsewhere}.", style="dim")


def _fitting(fields: Sequence[TableColumn], page: int) -> list[TableColumn]:
    """The fields that fit on the page, the least important left out first."""
    kept = list(fields)
    while sum(field.least + _GAP for field in kept) - _GAP > page:
        last = max(kept, key=lambda field: field.priority)
        if last.priority == 0:
            break
        kept.remove(last)
    return kept


def _widths(fields: Sequence[TableColumn], page: int) -> list[int] | None:
    """How wide each is: those that can be wrapped get what is left; None where it is too narrow."""
    spare = page + _GAP - sum(field.least + _GAP for field in fields)
    if spare < 0:
        return None
    widths = []
    for field in fields:
        more = min(spare, field.natural - field.least)
        widths.append(field.least + more)
        spare -= more
    return widths


def _table(
    fields: Sequence[TableColumn], widths: list[int] | None, section: Section, ascii_only: bool
) -> Table:
    table = Table(
        box=_ASCII_RULE if ascii_only else _RULE,
        show_edge=False,
        pad_edge=False,
        padding=(0, _GAP - 1, 0, 0),
        header_style="bold",
    )
    for index, field in enumerate(fields):
        table.add_column(
            field.heading,
            justify=field.justify,
            overflow="fold",
            width=widths[index] if widths else None,
        )
    for row in range(section.start, section.stop):
        cells = [field.cells[row] for field in fields]
        table.add_row(*(_plain(cell) if ascii_only else cell for cell in cells))
    return table


def _plain(cell: Text) -> Text:
    copy = cell.copy()
    copy.plain = copy.plain.translate(_ASCII)
    return copy
