"""What is measured of a machine and kept beside its records, by names that no run's record has.

A file each; an earlier one stays.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from bench.records import Model
from mnist_cnn.errors import UsageError


def save(measured: Model, at: datetime, suffix: str, folder: Path) -> Path:
    """Write it.

    Raises:
        UsageError: the folder cannot be written to.
    """
    path = folder / f"{at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}{suffix}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(measured.model_dump_json(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    return path


def files(paths: Iterable[Path], suffix: str) -> list[Path]:
    """Those in these files' folders, or in these folders and those in them."""
    return sorted({file for named in paths for file in _files(named, suffix)})


def _files(path: Path, suffix: str) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from (path.rglob(f"*{suffix}") if path.is_dir() else path.parent.glob(f"*{suffix}"))
