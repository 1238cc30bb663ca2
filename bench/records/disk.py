"""Writing files so that they are on the disk whole, or not at all; reading what is a file only."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path


def write_new(path: Path, content: bytes) -> None:
    """Write a new file and wait until it is on the disk."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read_regular_file(path: Path, most_bytes: int) -> bytes:
    """Read a file that a stranger may have made: a pipe would block, a device never ends.

    Raises:
        OSError: it cannot be read, is not a regular file or is larger than `most_bytes`.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(f"{path.name} is not a regular file")
    with path.open("rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(f"{path.name} is larger than {most_bytes} bytes")
    return content


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
