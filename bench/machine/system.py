"""Ask the operating system: a file, a kernel setting, a command. What it does not tell is empty."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

_COMMAND_SECONDS = 10.0
"""After which a helper command (git, sysctl, ...) is given up on."""


class NotReported(Exception):
    """The machine does not tell something; the message says why, in one line."""


def read_text(path: Path) -> str:
    """What a file holds; nothing where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def read_field(text: str, name: str) -> str | None:
    """The value in the first line that reads "name : value"."""
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == name:
            return value.strip() or None
    return None


def read_sysctl(name: str) -> str | None:
    """A setting of a macOS (or BSD) kernel."""
    return run_output("sysctl", "-n", name).strip() or None


def run_output(*command: str) -> str:
    """What a command prints; nothing where there is no such command or it fails."""
    program = shutil.which(command[0])
    if program is None:
        return ""
    # A hook's GIT_DIR would answer for another repository; git must not write its index here.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            [program, *command[1:]],
            env=inherited | {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_COMMAND_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
