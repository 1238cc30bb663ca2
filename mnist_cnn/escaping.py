"""Text of others as it may reach a terminal, a table or a log: nothing in it is obeyed."""

from __future__ import annotations

import re

_ESCAPES = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # operating system commands: titles, links, clipboard
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # control sequences: colours, cursor, screen
    r"|\x1b[ -/]*[0-~]?"  # every other escape
)


def printable(text: str) -> str:
    """The text on one line, with nothing in it that a terminal would obey.

    Escape sequences, control characters and invisible ones (text direction, zero width) are
    taken out; line breaks, tabs and odd spaces become a space each.
    """
    if text.isprintable():  # as nearly all of it is
        return text.strip()
    visible = (
        letter if letter.isprintable() else " " if letter.isspace() else ""
        for letter in _ESCAPES.sub("", text)
    )
    return "".join(visible).strip()


def shortened(text: str, most_letters: int = 200) -> str:
    """The text on one line as `printable` gives it, cut where it is longer.

    Args:
        text: what another program or a server says.
        most_letters: longest line, with the dots that stand for what was cut.
    """
    line = " ".join(printable(text).split())
    return line if len(line) <= most_letters else f"{line[: most_letters - 3].rstrip()}..."
