"""Copies the user's own records to the published ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.records import store
from bench.records.record_file import LARGEST_RECORD_BYTES
from bench.text import printable
from mnist_cnn.disk import read_file, refusal_of, refuse_link, write_new_file
from mnist_cnn.errors import UsageError, reason_of


def copy_records(paths: Sequence[Path], results_dir: Path) -> list[Path]:
    """Copy whole folders of records, with their plans and measurements, below `results_dir`.

    Args:
        paths: folders of records, or folders of such folders; each keeps its own name.
            Plan files of sweeps are passed over.
        results_dir: the folder of the published records.

    Returns:
        The folders that hold the copies.

    Raises:
        UsageError: a path holds no records, or one that cannot be read, or a file would replace
            another; then nothing was copied.
    """
    copies: dict[Path, tuple[Path, bytes]] = {}
    for path in store.without_sweep_plans(paths):
        for folder in _record_folders(path):
            for file in _files(folder):
                target, content = results_dir / folder.name / file.name, _read(file)
                _check_free(file, content, target, copies)
                copies[target] = file, content
    for target, (_, content) in copies.items():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                write_new_file(target, content)
        except OSError as error:
            raise UsageError(
                f"cannot write {printable(str(target))}: {refusal_of(error)}"
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


def _read(file: Path) -> bytes:
    try:
        return read_file(file, LARGEST_RECORD_BYTES)
    except OSError as error:
        raise UsageError(f"cannot read {printable(str(file))}: {reason_of(error)}") from error


def _check_free(
    file: Path, content: bytes, target: Path, copies: Mapping[Path, tuple[Path, bytes]]
) -> None:
    """Refuse to replace a file by another; an equal one is there already."""
    try:
        for path in (target.parent, target):
            refuse_link(path)
    except OSError as error:
        raise UsageError(f"cannot write {printable(str(path))}: {refusal_of(error)}") from error
    other, other_content = copies.get(target, (target, None))
    if other_content is None and target.exists():
        other_content = _read(target)
    if other_content is not None and other_content != content:
        raise UsageError(
            f"{printable(str(other))} exists and differs from {printable(str(file))}: records are "
            "never replaced"
        )
