"""The help of a command: its options under headings, and examples to copy, for any terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from typer.core import TyperCommand

HELP_NAMES = {"help_option_names": ["-h", "--help"]}
"""Settings of a program's context: names of the help option of all its commands."""


class HelpfulCommand(TyperCommand):
    """A command whose options have headings, their `rich_help_panel`, and whose epilog is kept."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options under their headings, in the order of their first ones."""
        by_heading: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            entry = parameter.get_help_record(ctx)
            if entry is not None:
                heading = f"{parameter.param_type_name.capitalize()}s"
                heading = getattr(parameter, "rich_help_panel", None) or heading
                by_heading.setdefault(heading, []).append(entry)
        for heading, entries in by_heading.items():
            with formatter.section(heading):
                formatter.write_dl(entries)

    def format_epilog(self, _: Any, formatter: Any) -> None:
        """Write the epilog as it is: its lines are to be copied, so none is broken."""
        if self.epilog:
            formatter.write(f"\n{self.epilog}\n")


def examples(lines: Iterable[tuple[str, str]]) -> str:
    """An epilog of examples.

    Args:
        lines: what a command line does, and the command line.
    """
    return "\n".join(["Examples:", *(f"  # {what}\n  {line}" for what, line in lines)])


def one_of(values: Iterable[str]) -> str:
    """``"a, b or c"``."""
    *first, last = values
    return f"{', '.join(first)} or {last}" if first else last


def completion(*values: str) -> Callable[[str], list[str]]:
    """What a shell offers for the begun value of an option."""

    def offer(incomplete: str) -> list[str]:
        return [value for value in values if value.startswith(incomplete)]

    return offer
