"""The folder that a guardian shares with the processes that it starts. Imports nothing slow.

It holds the log of the runs, the ends of ranks, and empty files that say what has happened so far.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from mnist_cnn.leftovers import FOLDER_PREFIX, lock_folder, sweep_folders
from mnist_cnn.rank import Rank, has_launcher, variables_problem

VARIABLE = "MNIST_BENCH_GUARD"
"""Variable that names the folder, in the processes that have a guardian."""
LOG_NAME = "runs.log"
"""Name of the log of the runs; see `bench.measure.run_log`."""
_BEGUN, _ORPHANED = "begun", "orphaned"


def guard_folder() -> Path | None:
    """The folder of this process's guardian; None where it has none."""
    name = os.environ.get(VARIABLE)
    return Path(name) if name and Path(name).is_dir() else None


def make_folder() -> Path:
    """Make a private folder; for the ranks of one launcher on this machine it is the same one.

    Raises:
        OSError: no temporary folder can be written to.
    """
    root = Path(tempfile.gettempdir())
    sweep_folders(root)
    if ranks_here() > 1:
        with suppress(OSError, IndexError):
            return _shared_folder(root)
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
    with suppress(OSError):
        lock_folder(folder)  # as long as this process or its child lives
    return folder


def leave_folder(folder: Path) -> None:
    """Remove the folder, once all who share it have gone."""
    with suppress(OSError):
        (folder / f"gone-{os.getpid()}").touch()
        if len(list(folder.glob("gone-*"))) >= ranks_here():
            shutil.rmtree(folder, ignore_errors=True)


def ranks_here() -> int:
    """Number of ranks that a launcher has started on this machine; 1 where none has."""
    if not has_launcher() or variables_problem() is not None:
        return 1
    return Rank.from_environment().local_world_size


def note_begun() -> None:
    """Note that from here on there is something to save."""
    _note(guard_folder(), _BEGUN)


def has_begun(folder: Path) -> bool:
    """Whether a process of the folder may have something to save."""
    return (folder / _BEGUN).exists()


def note_orphaned(folder: Path | None = None) -> None:
    """Note that a process above has died: a signal that comes now says so and nothing else.

    Args:
        folder: the guardian's folder; None for that of this process.
    """
    _note(folder or guard_folder(), _ORPHANED)


def is_orphaned() -> bool:
    """Whether a process above has died."""
    folder = guard_folder()
    return folder is not None and (folder / _ORPHANED).exists()


def note_done(folder: Path) -> None:
    """Note that the work of this process has returned."""
    _note(folder, f"done-{os.getpid()}")


def is_done(folder: Path, pid: int) -> bool:
    """Whether the work of a process has returned."""
    return (folder / f"done-{pid}").exists()


def _shared_folder(root: Path) -> Path:
    """The folder of all ranks of the launcher that started this process.

    Raises:
        OSError, IndexError: it cannot be made, or somebody else has made it.
    """
    # The launcher is the parent of all: its id, and when it was started, are theirs alone.
    launcher = os.getppid()
    stat = Path(f"/proc/{launcher}/stat").read_text(encoding="utf-8", errors="replace")
    started = stat.rpartition(")")[2].split()[19]
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    folder = root / f"{FOLDER_PREFIX}{os.getuid()}-{launcher}-{started}-{attempt}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    is_private = status.st_uid == os.getuid() and not status.st_mode & 0o077
    if not is_private or folder.is_symlink() or not folder.is_dir():
        raise PermissionError(f"{folder} is not private")
    lock_folder(folder, shared=True)
    return folder


def _note(folder: Path | None, name: str) -> None:
    if folder is not None:
        with suppress(OSError):  # a full disk
            (folder / name).touch()
