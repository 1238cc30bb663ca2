"""Writing files so that they are on the disk whole, or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_new(path: Path, content: bytes) -> None:
    """Write a new file and wait until it is on the disk."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def rename_to_new(source: Path, destination: Path) -> None:
    """Rename, but never over an existing file: `os.rename` would replace it on POSIX."""
    try:
        os.link(source, destination)
    except FileExistsError:
        raise
    except OSError:
        # No hard links here (FAT, some network folders): reserve the name first, then fill it.
        destination.open("xb").close()
        try:
            source.replace(destination)
        except OSError:
            destination.unlink(missing_ok=True)
            raise


def sync_folder(folder: Path) -> None:
    """Make a new file's name survive a power cut, where folders can be synced at all."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def reason_of(error: OSError) -> str:
    """Why the system refused, in a few words."""
    return error.strerror or type(error).__name__
