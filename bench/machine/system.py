"""Read what the operating system reports: a file, /proc, a kernel setting, a command's output.

What the system does not report is empty or None.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from mnist_cnn.errors import UsageError, reason_of

PROC = Path("/proc")
"""Linux's folder of kernel and process data."""
COMMAND_SECONDS = 10.0
"""Time limit of a helper command (git, sysctl, ...)."""


class NotReported(Exception):
    """The machine does not report a value; the message gives the reason in one line."""


def require_proc() -> None:
    """Check that Linux tells what it knows of the machine.

    Raises:
        UsageError: /proc is not mounted.
    """
    if sys.platform == "linux" and not (PROC / "meminfo").exists():
        raise UsageError(
            f"{PROC} is not mounted, where Linux tells memory, load and processor: "
            f"mount -t proc proc {PROC}"
        )


def read_text(path: Path) -> str:
    """The content of a file; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):  # a name may come from another file, and be none
        return ""


def read_proc(name: str) -> str:
    """The content of a file below /proc, such as ``"cpuinfo"``; empty if it cannot be read."""
    return read_text(PROC / name)


def read_field(text: str, name: str) -> str | None:
    """The value in the first line of the form "name : value"; None if there is no such line."""
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == name:
            return value.strip() or None
    return None


def whole_number(text: str) -> int | None:
    """A whole number of up to 18 decimal digits, or with 0x; None for anything else."""
    matched = re.fullmatch(r"0x[0-9a-fA-F]{1,16}|[0-9]{1,18}", text)
    if matched is None:
        return None
    return int(matched[0], 16) if matched[0].startswith("0x") else int(matched[0])


def read_sysctl(name: str) -> str | None:
    """A setting of a macOS (or BSD) kernel; None if there is no such setting."""
    return run_output("sysctl", "-n", name).strip() or None


def run_output(*command: str, timeout_seconds: float = COMMAND_SECONDS) -> str:
    """The output of a command; empty if the command is missing, fails or takes too long."""
    try:
        return require_output(*command, timeout_seconds=timeout_seconds)
    except NotReported:
        return ""


def require_output(*command: str, timeout_seconds: float = COMMAND_SECONDS) -> str:
    """The output of a command.

    Raises:
        NotReported: the command is missing, fails or takes too long; with what it printed first.
    """
    name = command[0]
    program = shutil.which(name)
    if program is None:
        raise NotReported(f"there is no {name} command")
    # Without optional locks, git does not write its index while others use it.
    environment = environment_without_git() | {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    try:
        completed = subprocess.run(
            [program, *command[1:]],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            check=False,
        )
    except OSError as error:
        raise NotReported(f"{name} could not be started: {reason_of(error)}") from error
    except subprocess.TimeoutExpired:
        raise NotReported(f"{name} did not answer within {timeout_seconds:g} s") from None
    if completed.returncode != 0:
        first_line = next(iter(completed.stderr.split("\n")), "").strip()
        how = first_line or f"exit status {completed.returncode}"
        raise NotReported(f"{name} failed: {how}")
    return completed.stdout


def environment_without_git() -> dict[str, str]:
    """The variables of this process, except git's own.

    In a git hook, GIT_DIR would make git answer for another repository.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
