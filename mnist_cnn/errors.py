"""The exceptions whose message is one line for the user."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path


class UsageError(Exception):
    """Bad input. The message is one line: what is wrong and what to do. Commands exit 2."""


class MissingDataError(UsageError):
    """MNIST is missing or damaged, and no source has it.

    Args:
        message: what is wrong where, and what to do.
        folder: folder of MNIST on this machine.
    """

    def __init__(self, message: str, folder: Path) -> None:
        super().__init__(message)
        self.public = message.replace(f"{folder}{os.sep}", "").replace(str(folder), "the folder")
        """The message without the folder's path, for a record that others read."""


class DamagedCheckpointError(UsageError):
    """A checkpoint is not the one that was written, or is of another training."""


class UnwrittenCheckpointError(Exception):
    """A checkpoint cannot be written, so the run ends. The message is one line and says it all."""


class InterruptedTrainingError(Exception):
    """A signal ended a training. The message says in one line what became of its weights."""


NO_PROCESSES = "no more processes or threads can be started"
_SHORTAGES = {
    # The last is what C++ says.
    NO_PROCESSES: ("can't start new thread", "Resource temporarily unavailable"),
    "out of memory": ("failed to map segment", "Cannot allocate memory"),
}


def shortage(error: BaseException) -> str:
    """What the system has too little of, if an error comes of that; otherwise empty."""
    if isinstance(error, MemoryError):
        return "out of memory"
    text = str(error)
    found = (what for what, parts in _SHORTAGES.items() if any(part in text for part in parts))
    return next(found, "")


def advice_on(error: BaseException) -> str:
    """What to do about an error that nobody expected, to follow it; empty where it is not known."""
    if shortage(error) == NO_PROCESSES:
        return ": end others, or raise their limit"
    # Python before 3.13 leaves such a file where a disk is full or files are limited in size.
    if isinstance(error, EOFError) and "marshal" in str(error):
        return ": a file of Python's compiled code is cut off; delete the __pycache__ folders"
    return ""


def reason_of(error: OSError) -> str:
    """Why the system refused, in a few words; a timeout of Python's has no `strerror`."""
    return error.strerror or str(error) or type(error).__name__


def parsing_reason(error: ValueError) -> str:
    """What is wrong with a text; Python's words about very long numbers are for programmers."""
    text = str(error)
    return "a number has thousands of digits" if text.startswith("Exceeds the limit") else text


def near_match(given: str, known: Iterable[str]) -> str:
    """``" (did you mean 'fast'?)"`` when a known name is close to `given`, else ``""``."""
    matches = difflib.get_close_matches(given, list(known), n=1, cutoff=0.5)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
