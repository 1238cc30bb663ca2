"""The folder that a guardian makes for the processes that it starts. Imports nothing slow."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "MNIST_BENCH_GUARD"
"""Variable that names the folder, in the processes that have a guardian."""


def guard_folder() -> Path | None:
    """The folder of this process's guardian; None where it has none."""
    name = os.environ.get(VARIABLE)
    return Path(name) if name and Path(name).is_dir() else None
