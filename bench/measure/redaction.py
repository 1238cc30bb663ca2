"""Take out of a command line or a path what a published record must not hold."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mnist_cnn.disk import home_folder

_PROJECT = Path(__file__).resolve().parents[2]


def redact_addresses(words: Sequence[str]) -> list[str]:
    """The command line with the address of --main-address replaced: a record names no host."""
    option, hidden = "--main-address", "HOST:PORT"
    return [
        hidden
        if before == option
        else f"{option}={hidden}"
        if word.startswith(f"{option}=")
        else word
        for before, word in zip(["", *words[:-1]], words, strict=True)
    ]


def redact_paths(path: Path | str) -> str:
    """The text without private paths: relative to the project's folder, the home folder as ~."""
    text = str(path).replace(f"{_PROJECT}{os.sep}", "")
    home = str(home_folder() or "")
    return text.replace(home, "~") if len(home) > 1 else text
