"""The four files of MNIST: their names, their content and their possible places.

A file is MNIST when its SHA-256 matches; names and lengths prove nothing. Torchvision's own loader
accepts truncated and swapped files, so every read is verified.

Source of the format: LeCun, Cortes, Burges, "The MNIST database of handwritten digits" (1998).
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from mnist_cnn.disk import open_regular_file
from mnist_cnn.errors import UsageError, reason_of
from mnist_cnn.user_folders import cache_folder

TORCHVISION_FOLDER = Path("MNIST", "raw")
"""Folder of the same files under the root of torchvision.datasets.MNIST."""

FOLDER_VARIABLE = "MNIST_DATA_DIR"
"""Environment variable that names the folder."""
PIECE_BYTES = 4 << 20
"""Length of a piece of a file; the last one is shorter."""
_CHUNK_BYTES = 1 << 20
_LARGEST_BYTES = 64 << 20
"""Most bytes of a file, uncompressed, that are read; the largest of MNIST has 47 MB."""


@dataclass(frozen=True, slots=True)
class IdxFile:
    """One file of the data set, in the IDX format: a header, then bytes in row-major order."""

    name: str
    sha256: str
    """SHA-256 of the whole uncompressed file, in hexadecimal."""
    pieces_sha256: str
    """SHA-256 of the digests of its pieces of `PIECE_BYTES`, which threads compute side by side."""
    shape: tuple[int, ...]
    """Shape of the elements: (N, 28, 28) for images, (N,) for labels."""

    @property
    def header(self) -> bytes:
        """Two zero bytes, the element type (8: unsigned byte), the rank, big-endian lengths."""
        lengths = b"".join(length.to_bytes(4, "big") for length in self.shape)
        return bytes([0, 0, 8, len(self.shape)]) + lengths

    @property
    def size_bytes(self) -> int:
        """Length of the uncompressed file."""
        return len(self.header) + math.prod(self.shape)


TRAIN_IMAGES = IdxFile(
    "train-images-idx3-ubyte",
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "290267ce466850007209e592be22145f03c432823c23f764df10c050e1ef1744",
    (60_000, 28, 28),
)
TRAIN_LABELS = IdxFile(
    "train-labels-idx1-ubyte",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "2379337c4bec78e89f880e02eb2e932d6af2c6764ccfa366e71751a74549517a",
    (60_000,),
)
TEST_IMAGES = IdxFile(
    "t10k-images-idx3-ubyte",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "9ef758657a0fdf6b09a69d4ab8b7d11cf25367c2b2b453805e6253c215b3e487",
    (10_000, 28, 28),
)
TEST_LABELS = IdxFile(
    "t10k-labels-idx1-ubyte",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    "4a4c2a6fc4473d91e3a2432cfeec49965d0588e6ad190f0a0b5be6732deac165",
    (10_000,),
)
FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)


@dataclass(frozen=True, slots=True)
class VerifiedFile:
    """A whole IDX file with the correct SHA-256."""

    file: IdxFile
    content: bytearray | memoryview
    """Bytes of the header, then of the elements; writable, so that tensors can share them."""


class NotMnistError(Exception):
    """A file has other content than expected; the message gives both SHA-256."""


@dataclass(frozen=True, slots=True)
class SearchedFolders:
    """The result of a search for one file in a folder."""

    verified: VerifiedFile | None
    """First correct copy; None where there is none."""
    path: Path | None
    """Path of that copy; None where there is none."""
    problems: dict[Path, str]
    """Incorrect copies that were found before it, each with its problem."""


def data_folder(data_dir: Path | None = None) -> Path:
    """The folder of MNIST: `data_dir`, or else MNIST_DATA_DIR's, or else the user's cache.

    Raises:
        UsageError: its name begins with a home folder that does not exist, or this user has none.
    """
    if data_dir is not None:
        return expand_home(data_dir)
    if named := os.environ.get(FOLDER_VARIABLE):
        return expand_home(Path(named))
    try:
        return cache_folder() / "mnist"
    except UsageError as error:
        raise UsageError(f"{error}, or name a folder with --data-dir") from None


def expand_home(path: Path) -> Path:
    """The path with a home folder in place of ``~`` or ``~user``.

    Raises:
        UsageError: there is no such home folder.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise UsageError(f"{path}: there is no home folder of that name") from None


def search(folder: Path, file: IdxFile) -> SearchedFolders:
    """Search `file` in `folder` and in torchvision's layout under it, also gzipped."""
    problems: dict[Path, str] = {}
    for path in places(folder, file):
        try:
            return SearchedFolders(read(path, file), path, problems)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except NotMnistError as error:
            problems[path] = str(error)
        except OSError as error:
            problems[path] = f"{path} cannot be read ({reason_of(error)})"
    return SearchedFolders(None, None, problems)


def places(folder: Path, file: IdxFile) -> Iterator[Path]:
    """Where `file` may be in a folder, in order; the last ones are gzipped."""
    for name in (file.name, f"{file.name}.gz"):
        yield folder / name
        yield folder / TORCHVISION_FOLDER / name


def read(path: Path, file: IdxFile) -> VerifiedFile:
    """Read and verify one copy of `file`, gzipped if the name ends in .gz.

    Raises:
        NotMnistError: it has other content.
        OSError: it cannot be read.
    """
    with open_regular_file(path) as stream:
        if path.suffix != ".gz":
            return _read_stream(stream, file, str(path))
        with gzip.GzipFile(fileobj=stream) as unpacked:
            return _read_stream(unpacked, file, str(path))


def verify(content: bytes, file: IdxFile, where: str) -> VerifiedFile:
    """Verify `content` as `file`.

    Args:
        content: the uncompressed bytes.
        file: the expected file.
        where: source of the content, for the message.

    Raises:
        NotMnistError: its SHA-256 is not the file's.
    """
    actual_sha256 = hashlib.sha256(content).hexdigest()
    if actual_sha256 != file.sha256:
        raise NotMnistError(_difference(actual_sha256, len(content), file, where))
    return VerifiedFile(file, bytearray(content))


def _read_stream(stream: BufferedReader | gzip.GzipFile, file: IdxFile, where: str) -> VerifiedFile:
    content = bytearray(file.size_bytes)
    digest = hashlib.sha256()
    length = 0
    try:
        while length < len(content) and (count := stream.readinto(memoryview(content)[length:])):
            digest.update(memoryview(content)[length : length + count])
            length += count
        while surplus := stream.read(_CHUNK_BYTES):
            digest.update(surplus)
            length += len(surplus)
            if length > _LARGEST_BYTES:
                raise NotMnistError(f"{where} is not MNIST: more than {_LARGEST_BYTES:,} bytes")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise NotMnistError(
            f"{where} is not a whole gzip file ({error}); expected inside it "
            f"{file.name} with sha256 {file.sha256}"
        ) from None
    if digest.hexdigest() != file.sha256:
        raise NotMnistError(_difference(digest.hexdigest(), length, file, where))
    return VerifiedFile(file, content)


def _difference(actual_sha256: str, length: int, file: IdxFile, where: str) -> str:
    """What is wrong with a file, in words that help to find the cause."""
    other = next((known.name for known in FILES if known.sha256 == actual_sha256), None)
    if other:
        kind = f"is {other} under another name"
    elif length < file.size_bytes:
        kind = f"is truncated or not MNIST ({length} of {file.size_bytes} bytes)"
    elif length > file.size_bytes:
        kind = f"is not MNIST ({length} bytes instead of {file.size_bytes})"
    else:
        kind = "is corrupt or not MNIST"
    return f"{where} {kind}: sha256 {actual_sha256}, expected {file.sha256}"
