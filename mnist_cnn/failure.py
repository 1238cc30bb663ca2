"""An error in one line, as a record may hold it: without addresses, private paths or decoration."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

from mnist_cnn.disk import home_folder
from mnist_cnn.errors import shortage
from mnist_cnn.escaping import printable

_PROJECT = Path(__file__).resolve().parents[1]
_ADDRESS = re.compile(
    r"\[?(?:(?<!\d)\d++(?:\.\d++){3}"
    r"|(?<![0-9A-Fa-f:.])[0-9A-Fa-f.]*+:[0-9A-Fa-f:.][0-9A-Fa-f.]*+:[0-9A-Fa-f:.]*+)"
    r"\]?(?::\d+)?"
)
"""An IPv4 or IPv6 address, as gloo writes them: ``[10.0.0.2]:4711``."""
_SOURCE = re.compile(r"\[[^\[\]\s]*\.(?:cc|cpp|cu|h|hpp):\d++\]\s*")
"""Where in C++ an error was raised: a path of the machine that built torch."""
_LONGEST = 500
_LONGEST_READ = 4 * _LONGEST
"""Letters of a message that are looked at."""


def describe_error(error: BaseException) -> str:
    """The type of an error and the first line of its message, without what is of no use."""
    name = type(error).__name__
    if short := shortage(error):
        name = f"{short} ({name})"
    # What names a folder of the user says it in another way for records.
    text = str(getattr(error, "public", error))
    lines = [line for line in text.splitlines() if line.strip()]
    message = _SOURCE.sub("", lines[0][:_LONGEST_READ]) if lines else ""
    message = _ADDRESS.sub("an address", redact_paths(message))
    message = " ".join("".join(filter(_is_plain, message)).split())
    return printable(f"{name}: {message}".strip().rstrip(":"))[:_LONGEST]


def _is_plain(letter: str) -> bool:
    """Whether a letter is no picture, as gloo and NCCL put before their messages."""
    return letter < "\u2000" or unicodedata.category(letter) != "So"


def redact_paths(path: Path | str) -> str:
    """The text without private paths: relative to the project's folder, the home folder as ~."""
    text = str(path).replace(f"{_PROJECT}{os.sep}", "")
    home = str(home_folder() or "")
    return text.replace(home, "~") if len(home) > 1 else text
