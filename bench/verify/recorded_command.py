"""The words of a recorded command, as far as they can be understood without running it."""

from __future__ import annotations

from collections.abc import Sequence

_PROGRAMS = ("mnist-bench", "__main__.py")
"""Programs that take the name of a command first."""


def is_run(command: Sequence[str]) -> bool:
    """Whether the words start `mnist-bench run`, in one of the ways that are known."""
    program = command[0].replace("\\", "/").rpartition("/")[2] if command else ""
    program = program.removesuffix(".exe")
    if program == "run.py":
        return True
    return program in _PROGRAMS and list(command[1:2]) == ["run"]


def option_value(command: Sequence[str], option: str) -> str | None:
    """The last value of an option; None where the command does not have it."""
    value = None
    for index, word in enumerate(command):
        if word == option and index + 1 < len(command):
            value = command[index + 1]
        elif word.startswith(f"{option}="):
            value = word.partition("=")[2]
    return value
