"""Where records are: the published results of machines, published studies, and the user's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

RESULTS_DIR = Path("results")
"""The folder of the published records, below the current one."""
LOCAL_NAME = "local"
LOCAL_DIR = RESULTS_DIR / LOCAL_NAME
"""The default folder of new records. Git ignores it in a checkout of this project."""
STUDIES_NAME = "studies"
"""Folder of published experiments, in the results folder: nothing in it is a machine's result."""
SET_ASIDE = frozenset({LOCAL_NAME, STUDIES_NAME})
"""Folders that are read only where they, or folders in them, are named."""
DEFAULT_DIRS = (LOCAL_DIR, RESULTS_DIR)
"""Where records are searched for that are not named."""


def walk(
    root: Path, on_error: Callable[[OSError], None] | None = None
) -> Iterator[tuple[Path, list[str], list[str]]]:
    """`os.walk` in an order that does not depend on the disk, without folders that are set aside.

    So a reader of published results meets studies and the user's own records only by name.
    """
    for folder, folders, names in os.walk(root, onerror=on_error):
        folders[:] = sorted(name for name in folders if name not in SET_ASIDE)
        yield Path(folder), folders, sorted(names)


def existing_dirs() -> list[Path]:
    """Those of `DEFAULT_DIRS` that exist: before the first run there is no folder."""
    return [folder for folder in DEFAULT_DIRS if folder.is_dir()]
