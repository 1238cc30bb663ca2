"""Reads and verifies the four files side by side, in pieces.

Each run reads MNIST on the clock. A SHA-256 is computed from the first byte of a file to its last,
by one thread. So each piece has a SHA-256 of its own, and `IdxFile.pieces_sha256` is that of their
digests. No other content has it, as none has `IdxFile.sha256`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from mnist_cnn.data.files import FILES, PIECE_BYTES, IdxFile, VerifiedFile, places
from mnist_cnn.disk import open_regular_file


def read_pieces(folder: Path, threads: int) -> dict[IdxFile, VerifiedFile] | None:
    """All four files, or None where one is missing, gzipped or not MNIST: `files.search` knows why.

    Args:
        folder: where they are; torchvision's layout under it is accepted.
        threads: number of threads that read and verify.
    """
    try:
        with ThreadPoolExecutor(threads) as pool:
            started = {file: _start(pool, _place(folder, file), file) for file in FILES}
            for file, (_, digests) in started.items():
                if hashlib.sha256(b"".join(digests)).hexdigest() != file.pieces_sha256:
                    return None
    except (OSError, RuntimeError):  # unreadable, or no more threads can be started
        return None
    return {file: VerifiedFile(file, content) for file, (content, _) in started.items()}


def _place(folder: Path, file: IdxFile) -> Path:
    """The first place of the file where something has its length.

    Raises:
        FileNotFoundError: there is none.
    """
    for path in places(folder, file):
        if path.suffix != ".gz" and path.exists() and path.stat().st_size == file.size_bytes:
            return path
    raise FileNotFoundError(folder)


def _start(
    pool: ThreadPoolExecutor, path: Path, file: IdxFile
) -> tuple[memoryview, Iterator[bytes]]:
    """Start to read a file; its content is there when the last piece's digest is."""
    # numpy asks for large pages, which the system clears faster.
    content = np.empty(file.size_bytes, np.uint8).data
    starts = range(0, file.size_bytes, PIECE_BYTES)
    return content, pool.map(partial(_read_piece, path, content), starts)


def _read_piece(path: Path, content: memoryview, start: int) -> bytes:
    """Read a piece into its place.

    Returns:
        Its SHA-256.
    """
    piece = content[start : start + PIECE_BYTES]
    with open_regular_file(path) as stream:
        stream.seek(start)
        length = 0
        while length < len(piece) and (count := stream.readinto(piece[length:])):
            length += count
    return hashlib.sha256(piece[:length]).digest()
