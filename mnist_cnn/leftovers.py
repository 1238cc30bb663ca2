"""Temporary files and folders of processes that were killed are removed by later ones.

A process that is alive has its own locked. So nothing is removed that another may use, nor anything
of another name or another user.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FOLDER_PREFIX = "mnist-bench-"
"""Beginning of the names of temporary folders."""
FOLDER_LOCK = ".in-use"
"""File in a temporary folder that its process has locked."""
RUN_LOG = "runs.log"
"""File in a temporary folder that holds what was measured: the folder stays until it is read."""
_FILE = re.compile(r"\..+\.[0-9a-f]{16}\.tmp", re.DOTALL)
"""Names that end as `mnist_cnn.disk.temporary_ending` says."""
_FOLDER = re.compile(rf"{FOLDER_PREFIX}[a-z0-9_-]{{8,}}")
_NEW_SECONDS = 60.0
"""Age up to which nothing is removed: it may not be locked yet."""
_OLD_SECONDS = 86_400.0
"""Age of a file from which no writer can be at work, where files cannot be locked."""


def remove_files_of(process: int, folder: Path) -> None:
    """Remove the temporary files in a folder, and in those in it, of a process that has died.

    Args:
        process: its number; on this machine, and of this user.
        folder: need not exist.
    """
    own = re.compile(rf"\..+\.{process % 2**32:08x}[0-9a-f]{{8}}\.tmp", re.DOTALL)
    with contextlib.suppress(OSError):
        for place in (folder, *(path for path in folder.iterdir() if path.is_dir())):
            for path, _ in _own_entries(place, own, newest_seconds=0.0):
                with contextlib.suppress(OSError):
                    path.unlink()


def sweep_files(folder: Path) -> None:
    """Remove the temporary files in a folder, and half-made folders, whose writers were killed."""
    for path, age_seconds in _own_entries(folder, _FILE):
        if path.is_file() and not path.is_symlink():
            with contextlib.suppress(OSError):
                if age_seconds > _OLD_SECONDS or _is_unlocked(path):
                    path.unlink()
        else:
            _remove_folder(path)


def sweep_folders(root: Path) -> None:
    """Remove the temporary folders whose processes were killed, but those with a log of runs."""
    for path, _ in _own_entries(root, _FOLDER):
        if not os.path.lexists(path / RUN_LOG):
            _remove_folder(path)


def abandoned_logs(root: Path) -> Iterator[Path]:
    """The private temporary folders with a log of runs whose processes were killed.

    This process has each locked until the next one is asked for, so that no other reads it too.
    """
    # Of any age: a folder is locked before a log is in it.
    for path, _ in _own_entries(root, _FOLDER, newest_seconds=-math.inf):
        with contextlib.suppress(OSError):
            if not stat.S_ISDIR(mode := path.lstat().st_mode) or mode & 0o077:
                continue
            # Before it is locked here: a new one's own process must get the lock.
            if not os.path.lexists(path / RUN_LOG):
                continue
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(path / FOLDER_LOCK, flags)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.lexists(path / RUN_LOG):  # else another process was quicker
                    yield path
            finally:
                os.close(descriptor)


def _remove_folder(path: Path) -> None:
    """Remove a folder that nobody has locked; a link, or one without a lock file, stays."""
    if path.is_dir() and not path.is_symlink():
        with contextlib.suppress(OSError):
            if _is_unlocked(path / FOLDER_LOCK):
                shutil.rmtree(path, ignore_errors=True)


def lock_folder(folder: Path, *, shared: bool = False) -> int:
    """Lock a temporary folder.

    Args:
        folder: the folder.
        shared: whether others have it locked as well; it is in use as long as one of them lives.

    Returns:
        The descriptor that keeps the lock, also in forked children; -1 without locks.
    """
    if fcntl is None:
        return -1
    flags = os.O_RDWR | os.O_CREAT | (os.O_NOFOLLOW if shared else os.O_EXCL)
    descriptor = os.open(folder / FOLDER_LOCK, flags, 0o600)
    with contextlib.suppress(OSError):  # not every file system has locks
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    return descriptor


def _own_entries(
    folder: Path, pattern: re.Pattern[str], newest_seconds: float = _NEW_SECONDS
) -> Iterator[tuple[Path, float]]:
    """Paths in a folder that are this user's, named like this and not new, with their age."""
    if not hasattr(os, "getuid"):
        return
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208
            if not pattern.fullmatch(name):
                continue
            with contextlib.suppress(OSError):
                status = (folder / name).lstat()
                age_seconds = time.time() - status.st_mtime
                if status.st_uid == os.getuid() and age_seconds > newest_seconds:
                    yield folder / name, age_seconds


def _is_unlocked(path: Path) -> bool:
    """Whether no process has a file locked.

    Raises:
        OSError: it cannot be opened, or cannot be locked at all.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
