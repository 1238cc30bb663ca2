"""The results folder: one file per run, written whole or not at all; reads whatever is in it."""

from __future__ import annotations

import errno
import gc
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.records.folders import walk
from bench.records.record_file import (
    LARGEST_RECORD_BYTES,
    UnreadableFile,
    file_name,
    machine_name,
    parse_record,
    to_json,
)
from bench.records.schema import RunRecord
from bench.records.sweep_plan import SWEEP_SUFFIX
from bench.records.zip_archive import RefusedArchive, is_archive, read_members
from bench.text import printable
from mnist_cnn.disk import (
    advice_for,
    leads_outside,
    probe_name,
    read_file,
    with_cleanup,
    write_new_file,
)
from mnist_cnn.errors import UsageError, reason_of
from mnist_cnn.leftovers import sweep_files

__all__ = [
    "CHART_NAME",
    "LARGEST_PAGE_BYTES",
    "PAGE_NAME",
    "REPORT_NAME",
    "ReadResult",
    "UnreadableFile",
    "check_writable",
    "file_name",
    "gc_paused",
    "is_second_copy",
    "machine_name",
    "read_records",
    "record_path",
    "save_record",
    "to_json",
    "without_sweep_plans",
]

PAGE_NAME = "README.md"
"""The results page in the results folder."""
CHART_NAME = "times.svg"
"""The results page's chart in the results folder."""
REPORT_NAME = "index.html"
"""The HTML report in the results folder."""

LARGEST_PAGE_BYTES = 256 * 1024**2
"""Most bytes of these three that are read."""

_LINK_OUT = "a link that leads out of the folder: name the file itself to read it"
_COUNTED_ONCE = ": counted once"
"""How the reason of a file ends that holds the same run as another one."""
_PROBE_BYTES = 256 * 1024
"""Bytes of the file that is written to see whether it can be: those of several records."""
_RECORD_BYTES = 64 * 1024
"""Room for a record: several times a usual one."""
_MOST_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class ReadResult:
    """What was read: every file is in exactly one of the two lists."""

    records: list[tuple[Path, RunRecord]] = field(default_factory=list)
    """Each record with its file."""
    problems: list[UnreadableFile] = field(default_factory=list)
    """Files that hold no record, or one that another file holds."""


def save_record(record: RunRecord, results_dir: Path) -> Path:
    """Write a run's record; when this returns it is on the disk, whole.

    What writers that were killed have left in its folder is removed.

    Returns:
        ``<results_dir>/<machine>/<started_at>-<recipe>-<run_id>.json``

    Raises:
        OSError: the record cannot be written, or one of that name exists. Nothing of it remains,
            and what existed before is unchanged.
    """
    final = record_path(record, results_dir)
    _write_below(final, to_json(record).encode())
    sweep_files(final.parent)
    return final


def record_path(record: RunRecord, results_dir: Path) -> Path:
    """The path at which `save_record` writes a record."""
    return results_dir / machine_name(record.environment) / file_name(record)


def check_writable(
    folder: Path,
    what: str = "the results folder",
    remedy: str = "choose another with --results-dir, or use --no-save",
    *,
    name: str = "probe.json",
    files: int = 1,
    keep: bool = False,
) -> None:
    """Check before training that results can be saved, by doing what the save will do.

    A file of that name is written, synced and renamed, and removed again, with the folders that
    were made for it. What writers that were killed have left in the folder is removed as well.

    Args:
        folder: the folder of the results, which need not exist.
        what: the folder's name in the message.
        remedy: what to do instead, in the message.
        name: a name as long as those that will be saved.
        files: number of files to make room for.
        keep: whether folders that were made stay: where files follow at once, another process's
            check must not remove them in between.

    Raises:
        UsageError: the folder cannot be written to.
    """
    made = [] if keep else _missing_folders(folder)
    probe = folder / probe_name(name)

    def try_to_write() -> None:
        _write_below(probe, bytes(_PROBE_BYTES))
        # While the file is there: an empty folder may be removed by another process's check.
        _check_room(folder, files)

    try:
        with_cleanup(try_to_write, lambda: probe.unlink(missing_ok=True))
        sweep_files(folder)
    except OSError as error:
        raise UsageError(
            f"cannot write to {what} {printable(str(folder))} ({reason_of(error)}): "
            f"{advice_for(error)}, or {remedy}"
        ) from error
    finally:
        for made_folder in made:
            # Another process may use it by now: only an empty folder can be removed.
            with suppress(OSError):
                made_folder.rmdir()


def _write_below(path: Path, content: bytes) -> None:
    """Write a new file and the folders that it needs.

    Raises:
        OSError: as `write_new_file`.
    """
    for attempt in range(_MOST_ATTEMPTS):
        try:
            _make_folder(path.parent)
            write_new_file(path, content)
        except FileNotFoundError:
            # Another process's check made the folder, and has just removed it again.
            if attempt == _MOST_ATTEMPTS - 1:
                raise
        else:
            return


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        OSError: it cannot be made; `FileNotFoundError` where another process removed it meanwhile.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        if os.path.lexists(folder):
            raise
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder)) from None


def _missing_folders(folder: Path) -> list[Path]:
    """The folder and those above it that do not exist, innermost first."""
    try:
        folder.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    except OSError:  # too long, for one: nothing can be made, and it may have very many parents
        return []
    return []


def _check_room(folder: Path, files: int) -> None:
    """Check that there is room for so many records, in place of the probe that is there.

    Raises:
        OSError: the disk is too full.
    """
    if not hasattr(os, "statvfs"):
        return
    status = os.statvfs(folder)
    has_room = status.f_bavail * status.f_frsize + _PROBE_BYTES >= files * _RECORD_BYTES
    # Some file systems make file entries as they need them, and count none.
    if not has_room or (status.f_files > 0 and status.f_favail + 1 < files):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def read_records(paths: Iterable[Path]) -> ReadResult:
    """Read every record in these files, folders and zip files.

    Folders are searched for ``*.json`` at every depth, except hidden files and folders, and folders
    that are links, and those set aside (`bench.records.folders`). Zip files are read where they
    are named, without unpacking them; those inside a folder are not. A file that holds no record is
    listed with the reason, and so are a second copy of a run and a link that leads out of a folder.

    Raises:
        UsageError: one of the paths does not exist.
    """
    with gc_paused():
        return _read_all(paths)


def without_sweep_plans(paths: Sequence[Path]) -> list[Path]:
    """The paths without plan files of sweeps; all paths where there are no others.

    `sweep` writes its plan beside the folders of machines, so ``results/local/*`` names it too.
    """
    others = [path for path in paths if path.suffix != SWEEP_SUFFIX or not path.is_file()]
    return others or list(paths)


def is_second_copy(problem: UnreadableFile) -> bool:
    """Whether a file was left out only because an equal one was read."""
    return problem.reason.endswith(_COUNTED_ONCE)


@contextmanager
def gc_paused() -> Iterator[None]:
    """Pause the garbage collector's search for cycles: it is slow among many records."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _read_all(paths: Iterable[Path]) -> ReadResult:
    result = ReadResult()
    first_of_benchmark: dict[str, RunRecord] = {}
    known: dict[str, tuple[Path, RunRecord]] = {}
    opened: set[str] = set()
    for file in (file for path in paths for file in _record_files(path, result.problems)):
        identity = os.path.realpath(file)
        if identity in opened:  # the same file, named twice
            continue
        opened.add(identity)
        for path, content in _read_contents(file):
            record = content if isinstance(content, UnreadableFile) else parse_record(path, content)
            if isinstance(record, UnreadableFile):
                result.problems.append(record)
            elif record.run_id in known:
                result.problems.append(_second_copy(path, record, *known[record.run_id]))
            else:
                first = first_of_benchmark.setdefault(record.benchmark_id, record)
                record = _share_equal_parts(record, first)
                known[record.run_id] = (path, record)
                result.records.append((path, record))
    return result


def _share_equal_parts(record: RunRecord, other: RunRecord) -> RunRecord:
    """The same record with the other's parts where they are equal: thousands fit in memory."""
    equal = {
        name: part
        for name in ("protocol", "recipe", "setup", "clock", "dataset", "environment")
        if getattr(record, name) == (part := getattr(other, name))
    }
    return record.model_copy(update=equal)


def _record_files(path: Path, problems: list[UnreadableFile]) -> Iterator[Path]:
    """The files that a path names, in an order that does not depend on the disk."""
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError) as error:
        why = reason_of(error) if isinstance(error, OSError) else str(error)
        raise UsageError(f"cannot read {printable(str(path))}: {why}") from error
    if not is_folder:
        yield path
        return

    def add_problem(error: OSError) -> None:
        problems.append(UnreadableFile(Path(error.filename or path), reason_of(error)))

    for folder, folders, names in walk(path, add_problem):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.endswith(".json") and not name.startswith("."):
                if leads_outside(folder / name, path):
                    problems.append(UnreadableFile(folder / name, _LINK_OUT))
                else:
                    yield folder / name


def _read_contents(path: Path) -> Iterator[tuple[Path, bytes | UnreadableFile]]:
    """The content of a file; for a zip file, of each record file in it."""
    try:
        if not is_archive(path):
            yield path, read_file(path, LARGEST_RECORD_BYTES)
            return
    except FileNotFoundError:  # a link to nothing: the name itself was found
        yield path, UnreadableFile(path, "not a regular file")
        return
    except OSError as error:
        yield path, UnreadableFile(path, reason_of(error))
        return
    for member, inside in read_members(path):
        if isinstance(inside, RefusedArchive):
            yield member, UnreadableFile(member, inside.reason)
        else:
            yield member, inside


def _second_copy(
    path: Path, record: RunRecord, first_path: Path, first: RunRecord
) -> UnreadableFile:
    first_name = printable(str(first_path))
    if record == first:
        return UnreadableFile(path, f"the same run as {first_name}{_COUNTED_ONCE}")
    return UnreadableFile(
        path, f"claims to be the run of {first_name} but differs from it: not counted"
    )
