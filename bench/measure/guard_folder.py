"""The folder that a guardian makes for the processes that it starts. Imports nothing slow."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

VARIABLE = "MNIST_BENCH_GUARD"
"""Variable that names the folder, in the processes that have a guardian."""


def guard_folder() -> Path | None:
    """The folder of this process's guardian; None where it has none."""
    name = os.environ.get(VARIABLE)
    return Path(name) if name and Path(name).is_dir() else None


def note_begun() -> None:
    """Note that from here on there is something to save."""
    _note("begun")


def has_begun(folder: Path) -> bool:
    """Whether a process of the folder may have something to save."""
    return (folder / "begun").exists()


def note_orphaned() -> None:
    """Note that a process above has died, and that a signal says so and nothing else."""
    _note("orphaned")


def is_orphaned() -> bool:
    """Whether a process above has died."""
    folder = guard_folder()
    return folder is not None and (folder / "orphaned").exists()


def _note(name: str) -> None:
    folder = guard_folder()
    if folder is not None:
        with suppress(OSError):  # a full disk
            (folder / name).touch()
