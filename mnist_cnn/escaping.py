"""Text of others as it may reach a terminal, a table or a log: nothing in it is obeyed."""

from __future__ import annotations

import re
import sys

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


def printable_lines(text: str) -> str:
    """The text of a table's cell, with its line breaks and tabs, but no other control character.

    What the rest of an escape sequence says stays: a value must not hide behind one.
    """
    return text if text.isprintable() else "".join(map(_printable_letter, text))


def _printable_letter(letter: str) -> str:
    if letter.isprintable() or letter in "\n\r\t":
        return letter
    return " " if letter.isspace() else ""


def printable_command(command: str) -> str:
    """A command that `shlex` has quoted, with the number of each letter that is not printable.

    A terminal obeys nothing of it, and bash and zsh read the same words. Line breaks remain.
    """
    if command.isprintable():
        return command
    return "".join(
        letter if letter.isprintable() or letter == "\n" else f"'$'\\U{ord(letter):08x}''"
        for letter in command
    )


def tell(line: str) -> None:
    """Print a line on stderr, of which a terminal obeys nothing."""
    print(printable(line), file=sys.stderr, flush=True)


def shortened(text: str, most_letters: int = 200) -> str:
    """The text on one line as `printable` gives it, cut where it is longer.

    Args:
        text: what another program or a server says.
        most_letters: longest line, with the dots that stand for what was cut.
    """
    line = " ".join(printable(text).split())
    return line if len(line) <= most_letters else f"{line[: most_letters - 3].rstrip()}..."
