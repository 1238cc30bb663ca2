"""Zip files of records, as people mail them: read in place, and never unpacked.

A zip file may be made to do harm: by names that lead to other folders (here no name leads to the
disk), by members that expand without end, or by very many members. All are limited.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from zipfile import ZipFile, ZipInfo

from bench.records.record_file import LARGEST_RECORD_BYTES
from mnist_cnn.disk import open_regular_file

LARGEST_TOTAL_BYTES = 1024**3
"""Most bytes of all members that are unpacked: more than those of 50,000 records."""
LARGEST_ARCHIVE_BYTES = 256 * 1024**2
"""Most bytes of a zip file."""
MOST_MEMBERS = 100_000
"""Most members of a zip file: the list of all of them is in memory."""
LONGEST_NAME = 512
"""Most letters of a member's path: a message may name two."""

_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
"""First bytes of a zip file, and of an empty one."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_ENTRY = b"PK\x01\x02"
"""First bytes of a member's entry in the list."""
_CHUNK_BYTES = 1 << 20


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
    with open_regular_file(path) as file:
        return file.read(4) in _MAGIC or path.suffix.lower() == ".zip"


def read_members(archive: Path) -> Iterator[tuple[Path, bytes | RefusedArchive]]:
    """The content of each ``*.json`` in a zip file, with its path as if the zip were a folder.

    In the order of their names, without hidden members, as in folders. What cannot be read is a
    `RefusedArchive`, which may be the zip file as a whole.
    """
    try:
        with open_regular_file(archive) as file:
            if reason := _too_large(file):
                yield archive, RefusedArchive(reason)
                return
            with ZipFile(file) as opened:
                for member, content in _wanted_members(opened):
                    yield archive if member is None else _path_inside(archive, member), content
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):
        yield archive, RefusedArchive("not a zip file, or a damaged one")


def _too_large(file: BinaryIO) -> str | None:
    """Why a zip file is not even listed; None where it may be."""
    size = os.fstat(file.fileno()).st_size
    if size > LARGEST_ARCHIVE_BYTES:
        return f"larger than {LARGEST_ARCHIVE_BYTES:,} bytes"
    # The number of members that the zip file states may be false.
    count = 0
    for offset in range(0, size, _CHUNK_BYTES):
        file.seek(offset)
        # Overlapping by less than a mark, so that one at the border counts once.
        count += file.read(_CHUNK_BYTES + len(_ENTRY) - 1).count(_ENTRY)
        if count > MOST_MEMBERS:
            return f"more than {MOST_MEMBERS:,} files in it"
    return None


def _wanted_members(archive: ZipFile) -> Iterator[tuple[ZipInfo | None, bytes | RefusedArchive]]:
    """Each member that may be a record; None as the member stands for the zip file."""
    total, any_too_long = 0, False
    for member in sorted(archive.infolist(), key=lambda member: member.filename):
        if not _is_wanted(member):
            continue
        if total > LARGEST_TOTAL_BYTES:
            reason = f"more than {LARGEST_TOTAL_BYTES:,} bytes in it: the rest is not read"
            yield None, RefusedArchive(reason)
            return
        if len(member.filename) > LONGEST_NAME:
            any_too_long = True
            continue
        content = _read_member(archive, member)
        total += 0 if isinstance(content, RefusedArchive) else len(content)
        yield member, content
    if any_too_long:
        reason = f"names of more than {LONGEST_NAME} letters in it: those files are not read"
        yield None, RefusedArchive(reason)


def _is_wanted(member: ZipInfo) -> bool:
    parts = _path_parts(member)
    hidden = any(part.startswith(".") for part in parts)
    return bool(parts) and parts[-1].endswith(".json") and not hidden and not member.is_dir()


def _read_member(archive: ZipFile, member: ZipInfo) -> bytes | RefusedArchive:
    if member.flag_bits & _ENCRYPTED:
        return RefusedArchive("encrypted")
    if member.compress_type not in _METHODS:
        return RefusedArchive("compressed in a way that is not read here: use deflate, as zip does")
    if member.file_size > LARGEST_RECORD_BYTES:  # no more than the stated size is unpacked
        return RefusedArchive(f"larger than {LARGEST_RECORD_BYTES:,} bytes: no record is")
    try:
        return archive.read(member)
    except (zipfile.BadZipFile, NotImplementedError, OSError, RuntimeError, ValueError) as error:
        return RefusedArchive(f"damaged ({type(error).__name__})")
    except (EOFError, zlib.error):
        return RefusedArchive("damaged")


def _path_parts(member: ZipInfo) -> list[str]:
    """The folders and the file of a member's name, without parts that lead up or to the root."""
    return [part for part in member.filename.split("/") if part not in ("", ".", "..")]


def _path_inside(archive: Path, member: ZipInfo) -> Path:
    return archive.joinpath(*_path_parts(member))
