"""Copies the user's own records to the published ones."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.records import store
from bench.records.disk import reason_of
from bench.text import printable
from mnist_cnn.errors import UsageError


def copy_records(paths: Sequence[Path], results_dir: Path) -> list[Path]:
    """Copy whole folders of records, with their plans and measurements, below `results_dir`.

    Args:
        paths: folders of records, or folders of such folders; each keeps its own name.
        results_dir: the folder of the published records.

    Returns:
        The folders that hold the copies.

    Raises:
        UsageError: a path holds no records, or one that cannot be read, or a file would replace
            another; then nothing was copied.
    """
    copies: dict[Path, Path] = {}
    for path in paths:
        for folder in _record_folders(path):
            for file in _files(folder):
                target = results_dir / folder.name / file.name
                _check_free(file, copies.get(target, target))
                copies[target] = file
    for target, file in copies.items():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                shutil.copyfile(file, target)
        except OSError as error:
            raise UsageError(
                f"cannot write {printable(str(target))}: {reason_of(error)}"
            ) from error
    return sorted({target.parent for target in copies})


def _record_folders(path: Path) -> list[Path]:
    if not path.is_dir():
        raise UsageError(
            f"{printable(str(path))} is no folder: name one of records, as results/local/<machine>"
        )
    contents = store.read_records([path])
    if contents.problems:
        problem = contents.problems[0]
        raise UsageError(f"{printable(f'{problem.path}: {problem.reason}')}: remove or restore it")
    if not contents.records:
        raise UsageError(f"no run records in {printable(str(path))}")
    return sorted({file.resolve().parent for file, _ in contents.records})


def _files(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.iterdir()):
        if file.name.startswith("."):
            continue
        if file.is_symlink() or not file.is_file():
            raise UsageError(
                f"{printable(str(file))} is no regular file: a folder to publish holds files only"
            )
        yield file


def _check_free(file: Path, target: Path) -> None:
    """Refuse to replace a file by another; an equal one is there already."""
    if target.exists() and target.read_bytes() != file.read_bytes():
        raise UsageError(
            f"{printable(str(target))} exists and differs from {printable(str(file))}: records are "
            "never replaced"
        )
