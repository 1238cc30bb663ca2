"""The folder that a guardian shares with the processes that it starts. Imports nothing slow.

It holds the log of the runs, the ends of ranks, and empty files for what has not happened yet: a
file can be removed on a full disk too, but not be made.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mnist_cnn.leftovers import FOLDER_PREFIX, RUN_LOG, lock_folder, sweep_folders
from mnist_cnn.rank import Rank, has_launcher, variables_problem

VARIABLE = "MNIST_BENCH_GUARD"
"""Variable that names the folder, in the processes that have a guardian."""
LOG_NAME = RUN_LOG
"""Name of the log of the runs; see `bench.measure.run_log`."""
_NOT_BEGUN, _NOT_ORPHANED, _NOT_DONE = "not-begun", "not-orphaned", "not-done-"
_WRITER = "writer-"
_guarded: set[str] = set()
"""Names of folders whose guardian is, or was, above this process."""


def guard_folder() -> Path | None:
    """The folder of this process's guardian; None where it has none.

    A variable that is left over from another process names a guardian that is not above this one.
    """
    name = os.environ.get(VARIABLE)
    if not name or not Path(name).is_dir():
        return None
    if name not in _guarded:
        if not _is_guarded(Path(name)):
            return None
        _guarded.add(name)  # for good: the guardian may die before this process
    return Path(name)


def drop_foreign_folder() -> bool:
    """Forget a variable that names no folder of a guardian of this process.

    Returns:
        Whether there was one.
    """
    if VARIABLE not in os.environ or guard_folder() is not None:
        return False
    del os.environ[VARIABLE]
    return True


def enter_folder(folder: Path) -> None:
    """Note that this process, and those that it starts, have a guardian."""
    os.environ[VARIABLE] = str(folder)
    _guarded.add(str(folder))


def _is_guarded(folder: Path) -> bool:
    """Whether this process or one above it waits for what is done in a folder."""
    guardians = {path.name.removeprefix(_NOT_DONE) for path in folder.glob(f"{_NOT_DONE}*")}
    pid = os.getpid()
    while guardians and pid > 0:
        if _identity(pid) in guardians:
            return True
        parent = _parent(pid)
        if parent is None:  # it cannot be known: no /proc, no psutil
            return True
        pid = parent
    return False


def _identity(pid: int) -> str:
    """A process's id, and where the system tells it when it was started: an id is used again."""
    fields = _stat_fields(pid)
    return f"{pid}-{fields[19] if fields else ''}"


def _parent(pid: int) -> int | None:
    """The parent of a process; 0 where there is none, None where it cannot be known."""
    if pid == os.getpid():
        return os.getppid()
    if fields := _stat_fields(pid):
        return int(fields[1])
    with suppress(Exception):  # its errors are many, and not all its own
        import psutil  # only here: it is slow to import

        return int(psutil.Process(pid).ppid())
    return None


def _stat_fields(pid: int) -> list[str]:
    """What Linux tells of a process, from its state on: proc(5), field 3; empty elsewhere."""
    with suppress(OSError):
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        # The name, in parentheses, may hold spaces.
        return text.rpartition(")")[2].split()
    return []


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
    try:
        lock_folder(folder)  # as long as this process or its child lives
        fill_folder(folder)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
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
    _note(guard_folder(), _NOT_BEGUN)


def has_begun(folder: Path) -> bool:
    """Whether a process of the folder may have something to save."""
    return not (folder / _NOT_BEGUN).exists()


def note_orphaned(folder: Path | None = None) -> None:
    """Note that a process above has died: a signal that comes now says so and nothing else.

    Args:
        folder: the guardian's folder; None for that of this process.
    """
    _note(folder or guard_folder(), _NOT_ORPHANED)


def is_orphaned() -> bool:
    """Whether a process above has died."""
    folder = guard_folder()
    return folder is not None and not (folder / _NOT_ORPHANED).exists()


def note_writer(results_dir: Path) -> None:
    """Note that this process writes below a results folder: what it leaves there can be removed."""
    folder = guard_folder()
    if folder is not None:
        with suppress(OSError):  # a full disk: later runs remove what is left
            (folder / f"{_WRITER}{os.getpid()}").write_bytes(os.fsencode(results_dir.absolute()))


def writers(folder: Path) -> Iterator[tuple[int, Path]]:
    """The processes that have written below results folders, with these."""
    for note in folder.glob(f"{_WRITER}*"):
        with suppress(OSError, ValueError):
            yield int(note.name.removeprefix(_WRITER)), Path(os.fsdecode(note.read_bytes()))


def note_done(folder: Path, guardian: int) -> None:
    """Note that the work of a guardian's child has returned.

    Args:
        folder: the folder.
        guardian: id of the guardian's process.
    """
    for path in folder.glob(f"{_NOT_DONE}{guardian}-*"):
        _note(folder, path.name)


def is_done(folder: Path) -> bool:
    """Whether the work of this guardian's child has returned."""
    return not any(folder.glob(f"{_NOT_DONE}{os.getpid()}-*"))


def _shared_folder(root: Path) -> Path:
    """The folder of all ranks of the launcher that started this process.

    Raises:
        OSError, IndexError: it cannot be made, or somebody else has made it.
    """
    # The launcher is the parent of all: its id, and when it was started, are theirs alone.
    launcher = os.getppid()
    started = _stat_fields(launcher)[19]
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    folder = root / f"{FOLDER_PREFIX}{os.getuid()}-{launcher}-{started}-{attempt}"
    is_made = False
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        is_made = True
    status = folder.lstat()
    is_private = status.st_uid == os.getuid() and not status.st_mode & 0o077
    if not is_private or folder.is_symlink() or not folder.is_dir():
        raise PermissionError(f"{folder} is not private")
    lock_folder(folder, shared=True)
    fill_folder(folder, is_made=is_made)
    return folder


def fill_folder(folder: Path, *, is_made: bool = True) -> None:
    """Make the files for what has not happened yet.

    Args:
        folder: the folder.
        is_made: whether this process has made the folder; another may be far on in its own.

    Raises:
        OSError: there is no room.
    """
    of_all = (_NOT_BEGUN, _NOT_ORPHANED) if is_made else ()
    for name in (*of_all, f"{_NOT_DONE}{_identity(os.getpid())}"):
        (folder / name).touch()


def _note(folder: Path | None, name: str) -> None:
    """Note that something has happened."""
    if folder is not None:
        with suppress(OSError):
            (folder / name).unlink()
