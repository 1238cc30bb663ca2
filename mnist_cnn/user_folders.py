"""The user's own folders: cache, state and temporary files, or what to set where there are none."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import platformdirs

from mnist_cnn.disk import home_folder
from mnist_cnn.errors import UsageError, reason_of
from mnist_cnn.leftovers import FOLDER_PREFIX, lock_folder, sweep_folders

_NAME = "mnist-bench"
UNSAVED_NAME = "unsaved"
"""Folder, in the user's state folder, of what could not be saved where it should have been."""

_Saved = TypeVar("_Saved")


def cache_folder() -> Path:
    """The folder of what can be got again.

    Raises:
        UsageError: this user has no home folder.
    """
    return _own(platformdirs.user_cache_path(_NAME, appauthor=False), "XDG_CACHE_HOME")


def state_folder() -> Path:
    """The folder of what is kept between runs and is no setting.

    Raises:
        UsageError: this user has no home folder.
    """
    return _own(platformdirs.user_state_path(_NAME, appauthor=False), "XDG_STATE_HOME")


def _own(folder: Path, variable: str) -> Path:
    has_home = home_folder() is not None or os.environ.get(variable)
    if has_home and folder.is_absolute():
        return folder
    raise UsageError(
        f"this user has no home folder for {folder.name}: set HOME or {variable} to a folder"
    )


def save_elsewhere(name: str, save: Callable[[Path], _Saved]) -> _Saved | None:
    """Save what its own folder does not take: in the state folder, else in a temporary one.

    Args:
        name: name of its folder there.
        save: saves it in a folder, which it makes if necessary.

    Returns:
        What `save` returns; None where neither folder takes it.
    """
    with contextlib.suppress(OSError, UsageError):
        return save(state_folder() / UNSAVED_NAME / name)
    with contextlib.suppress(OSError):
        # Not a name that is swept.
        return save(Path(tempfile.mkdtemp(prefix=f"{UNSAVED_NAME}-{_NAME}-{name}-")))
    return None


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder for temporary files, removed at the end.

    Those of processes that were killed are removed before.

    Raises:
        UsageError: no folder for temporary files can be written to.
    """
    try:
        sweep_folders(Path(tempfile.gettempdir()))
        folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
    except OSError as error:
        raise UsageError(
            "no folder for temporary files can be written to: set TMPDIR to one "
            f"({reason_of(error)})"
        ) from error
    lock = -1
    try:
        with contextlib.suppress(OSError):
            lock = lock_folder(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock >= 0:
            os.close(lock)
