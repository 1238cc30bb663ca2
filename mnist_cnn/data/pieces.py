"""Reads and verifies the four files side by side, in pieces.

Each run reads MNIST on the clock. A SHA-256 is computed from the first byte of a file to its last,
by one thread. So each piece has a SHA-256 of its own, and `IdxFile.pieces_sha256` is that of their
digests. No other content has it, as none has `IdxFile.sha256`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from mnist_cnn.data.files import FILES, PIECE_BYTES, IdxFile, VerifiedFile, places
from mnist_cnn.disk import open_regular_file

Memory = Callable[[IdxFile], memoryview]
"""Gives the memory that a file is read into, of its length."""
Arrived = Callable[[IdxFile, int, int], None]
"""Is told of a file's bytes from `start` to before `stop` that are in that memory. They have not
been verified; threads call it side by side."""


class Reading:
    """Reads and verifies the files, from now on, in threads of its own.

    Args:
        folder: where they are; torchvision's layout under it is accepted.
        threads: number of threads that read and verify.
        memory: the memory that they are read into; None for ordinary memory.
        arrived: told of each piece; None where nobody waits for pieces.
    """

    def __init__(
        self,
        folder: Path,
        threads: int,
        memory: Memory | None = None,
        arrived: Arrived | None = None,
    ) -> None:
        self._memory, self._arrived = memory or _ordinary_memory, arrived
        self._pool = ThreadPoolExecutor(threads)
        self._started: dict[IdxFile, tuple[memoryview, Iterator[bytes]]] | None = None
        try:
            self._started = {file: self._start(_place(folder, file), file) for file in FILES}
        except (OSError, RuntimeError):  # unreadable, or no more threads can be started
            self._pool.shutdown(cancel_futures=True)

    def result(self) -> dict[IdxFile, VerifiedFile] | None:
        """All four files, once.

        None where one is missing, gzipped or not MNIST: `files.search` knows why.
        """
        if self._started is None:
            return None
        try:
            with self._pool:
                for file, (_, digests) in self._started.items():
                    if hashlib.sha256(b"".join(digests)).hexdigest() != file.pieces_sha256:
                        return None
        except (OSError, RuntimeError):
            return None
        return {file: VerifiedFile(file, content) for file, (content, _) in self._started.items()}

    def _start(self, path: Path, file: IdxFile) -> tuple[memoryview, Iterator[bytes]]:
        """Start to read a file; its content is there when the last piece's digest is."""
        content = self._memory(file)
        starts = range(0, file.size_bytes, PIECE_BYTES)
        return content, self._pool.map(partial(self._read_piece, path, file, content), starts)

    def _read_piece(self, path: Path, file: IdxFile, content: memoryview, start: int) -> bytes:
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
        if self._arrived is not None:
            self._arrived(file, start, start + length)
        return hashlib.sha256(piece[:length]).digest()


def _ordinary_memory(file: IdxFile) -> memoryview:
    # numpy asks for large pages, which the system clears faster.
    return np.empty(file.size_bytes, np.uint8).data


def _place(folder: Path, file: IdxFile) -> Path:
    """The first place of the file where something has its length.

    Raises:
        FileNotFoundError: there is none.
    """
    for path in places(folder, file):
        if path.suffix != ".gz" and path.exists() and path.stat().st_size == file.size_bytes:
            return path
    raise FileNotFoundError(folder)
