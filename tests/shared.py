"""What is made once for all workers of a test run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(
    tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]
) -> Path:
    """A folder that the first worker to ask for it fills, while the others wait.

    A fixture lives once in each worker, and a worker that takes tests from another may set it up
    anew. Tests must not write to the folder.

    Args:
        tmp_path_factory: pytest's.
        name: the folder's name, unique among all tests.
        make: fills the new folder that it gets.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(folder.with_suffix(".lock")):
        done = folder.with_suffix(".done")
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # half made, by a worker that failed
            folder.mkdir()
            make(folder)
            done.touch()
    return folder
