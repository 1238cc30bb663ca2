"""Where a report goes that is not for the screen: a file, or a folder of files."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from bench.notation import inert
from mnist_cnn.errors import UsageError


def write_document(text: str, path: Path | None) -> None:
    """Write a file, over what was there; without a path, to stdout.

    Raises:
        UsageError: it cannot be written.
    """
    if path is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")  # for programs, whatever the screen can show
        sys.stdout.write(text)
        return
    if path.is_dir():
        raise UsageError(f"--output {inert(str(path))} is a folder: name a file in it")
    try:
        path.write_bytes(text.encode())
    except OSError as error:
        raise _refusal(path, error) from error


def write_folder(files: Mapping[PurePosixPath, str], folder: Path | None) -> None:
    """Write files into a new or empty folder: old ones among them would pass for part of it.

    Raises:
        UsageError: there is no such folder to write to.
    """
    if folder is None:
        raise UsageError("this format is a file a run: name a new folder for them with --output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UsageError(f"--output {inert(str(folder))} is not empty: name a new folder")
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
    except FileExistsError as error:
        raise UsageError(
            f"--output {inert(str(folder))} is a file: this format needs a folder"
        ) from error
    except OSError as error:
        raise _refusal(folder, error) from error


def _refusal(path: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot write {inert(str(path))}: {error.strerror}")
