"""What several tests do: make something once for all workers, wait for processes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import psutil
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


def wait_until_ended(processes: Iterable[psutil.Process]) -> None:
    """Wait for processes of others; in a container, nobody may collect what has ended."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # it ended between two questions
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                with suppress(psutil.TimeoutExpired):
                    process.wait(0.05)
