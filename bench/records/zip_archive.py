"""Zip files of records, as somebody mails them: read where they are, and never unpacked.

A zip file may be made to do harm: by names that lead elsewhere, which here name nothing on disk, by
members that grow without end, by any number of them. All are bounded.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile, ZipInfo

LARGEST_MEMBER_BYTES = 16 * 1024**2
"""Bytes of a member: a thousand times those of a record."""
MOST_MEMBERS = 4 * 1024**3
"""Bytes of all that are read: more than of 100,000 records."""

_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
"""How a zip file begins, and one with nothing in it."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1


@dataclass(frozen=True, slots=True)
class RefusedArchive:
    """What stands for a member that is not read."""

    reason: str
    """One line."""


def is_archive(path: Path) -> bool:
    """Whether a regular file is a zip file, or is called one.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(4) in _MAGIC or path.suffix.lower() == ".zip"


def read_members(archive: Path) -> Iterator[tuple[Path, bytes | RefusedArchive]]:
    """What each ``*.json`` in it holds, by where it would lie if the zip file were a folder.

    In the order of their names; hidden ones are passed over, as in folders. What cannot be read
    comes as a `RefusedArchive`, which may be the zip file as a whole.
    """
    try:
        with ZipFile(archive) as opened:
            total = 0
            for member in sorted(opened.infolist(), key=lambda one: one.filename):
                if not _is_wanted(member):
                    continue
                if total > MOST_MEMBERS:
                    yield (
                        archive,
                        RefusedArchive(
                            f"more than {MOST_MEMBERS:,} bytes in it: the rest is not read"
                        ),
                    )
                    return
                content = _read_member(opened, member)
                total += 0 if isinstance(content, RefusedArchive) else len(content)
                yield _shown_place(archive, member), content
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):
        yield archive, RefusedArchive("not a zip file, or a damaged one")


def _is_wanted(member: ZipInfo) -> bool:
    parts = _path_parts(member)
    hidden = any(part.startswith(".") for part in parts)
    return bool(parts) and parts[-1].endswith(".json") and not hidden and not member.is_dir()


def _read_member(archive: ZipFile, member: ZipInfo) -> bytes | RefusedArchive:
    if member.flag_bits & _ENCRYPTED:
        return RefusedArchive("encrypted")
    if member.compress_type not in _METHODS:
        return RefusedArchive("compressed in a way that is not read here: use deflate, as zip does")
    try:
        with archive.open(member) as file:
            # What its size is said to be may be a lie.
            content = file.read(LARGEST_MEMBER_BYTES + 1)
    except (zipfile.BadZipFile, NotImplementedError, OSError, RuntimeError, ValueError) as error:
        return RefusedArchive(f"damaged ({type(error).__name__})")
    except (EOFError, zlib.error):
        return RefusedArchive("damaged")
    if len(content) > LARGEST_MEMBER_BYTES:
        return RefusedArchive(f"larger than {LARGEST_MEMBER_BYTES:,} bytes: no record is")
    return content


def _path_parts(member: ZipInfo) -> list[str]:
    """Of its name, what could be folders and a file: nothing leads upwards, or to the root."""
    return [part for part in member.filename.split("/") if part not in ("", ".", "..")]


def _shown_place(archive: Path, member: ZipInfo) -> Path:
    return archive.joinpath(*_path_parts(member))
