"""Zip files of records, as people mail them: read in place, and never unpacked.

A zip file may be made to do harm: by names that lead to other folders (here no name leads to the
disk), by members that expand without end, or by very many members. All are limited.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile, ZipInfo

LARGEST_MEMBER_BYTES = 16 * 1024**2
"""Most bytes of one member: a thousand times those of a record."""
LARGEST_TOTAL_BYTES = 4 * 1024**3
"""Most bytes of all members that are read: more than those of 100,000 records."""

_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
"""First bytes of a zip file, and of an empty one."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1


@dataclass(frozen=True, slots=True)
class RefusedArchive:
    """A member, or a whole zip file, that is not read."""

    reason: str
    """Why, in one line."""


def is_archive(path: Path) -> bool:
    """Whether a regular file is a zip file, by its content or by its name.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return file.read(4) in _MAGIC or path.suffix.lower() == ".zip"


def read_members(archive: Path) -> Iterator[tuple[Path, bytes | RefusedArchive]]:
    """The content of each ``*.json`` in a zip file, with its path as if the zip were a folder.

    In the order of their names, without hidden members, as in folders. What cannot be read is a
    `RefusedArchive`, which may be the zip file as a whole.
    """
    try:
        with ZipFile(archive) as opened:
            total = 0
            for member in sorted(opened.infolist(), key=lambda member: member.filename):
                if not _is_wanted(member):
                    continue
                if total > LARGEST_TOTAL_BYTES:
                    yield (
                        archive,
                        RefusedArchive(
                            f"more than {LARGEST_TOTAL_BYTES:,} bytes in it: the rest is not read"
                        ),
                    )
                    return
                content = _read_member(opened, member)
                total += 0 if isinstance(content, RefusedArchive) else len(content)
                yield _path_inside(archive, member), content
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
            # The size that the zip file states may be false.
            content = file.read(LARGEST_MEMBER_BYTES + 1)
    except (zipfile.BadZipFile, NotImplementedError, OSError, RuntimeError, ValueError) as error:
        return RefusedArchive(f"damaged ({type(error).__name__})")
    except (EOFError, zlib.error):
        return RefusedArchive("damaged")
    if len(content) > LARGEST_MEMBER_BYTES:
        return RefusedArchive(f"larger than {LARGEST_MEMBER_BYTES:,} bytes: no record is")
    return content


def _path_parts(member: ZipInfo) -> list[str]:
    """The folders and the file of a member's name, without parts that lead up or to the root."""
    return [part for part in member.filename.split("/") if part not in ("", ".", "..")]


def _path_inside(archive: Path, member: ZipInfo) -> Path:
    return archive.joinpath(*_path_parts(member))
