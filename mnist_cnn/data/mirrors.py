"""Downloads MNIST from torchvision's web servers."""

from __future__ import annotations

import queue
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import urlopen

from mnist_cnn.data.files import IdxFile, NotMnistError, VerifiedFile, verify
from mnist_cnn.data.limits import LIMITS, TransferLimits
from mnist_cnn.data.progress import Progress
from mnist_cnn.escaping import shortened

_LARGEST_BYTES = 32 << 20
"""Largest accepted download; no gzipped file of MNIST has more than 10 MB."""
_CHUNK_BYTES = 1 << 18
_STALL_MARGIN_SECONDS = 5.0
"""Seconds after the longest pause at which the connection itself is given up."""
_UNREACHABLE = (OSError, HTTPException, ValueError)
"""Exceptions of urllib for networks and servers that do not work."""


def from_mirrors(
    wanted: Sequence[IdxFile],
    progress: Progress,
    problems: list[str],
    limits: TransferLimits = LIMITS,
) -> Iterator[tuple[VerifiedFile, str]]:
    """Download the `wanted` files, each from the first mirror that has it.

    Yields:
        Each file obtained and the address it came from.

    Failures are appended to `problems`; a mirror that failed is not used again.
    """
    try:
        # Lazy: torchvision takes seconds to import and is rarely needed here.
        from torchvision.datasets import MNIST
    except (ImportError, OSError, RuntimeError) as error:
        reason = shortened(str(error))  # a loader's message has many lines
        problems.append(f"torchvision, which knows the mirrors, cannot be imported ({reason})")
        return
    missing = list(wanted)
    for mirror in MNIST.mirrors:
        deadline = time.monotonic() + limits.total_seconds
        for file in tuple(missing):
            address = f"{mirror}{file.name}.gz"
            try:
                packed = _Download(address, limits, deadline).read(file.name, progress)
                verified = verify(_unpack(packed, file), file, address)
            except NotMnistError as error:
                problems.append(str(error))
                break
            except TooSlow as error:
                problems.append(f"{mirror} is too slow ({error})")
                break
            except _UNREACHABLE as error:
                problems.append(f"{mirror} cannot be reached ({_reason(error)})")
                break
            missing.remove(file)
            yield verified, address


class TooSlow(Exception):
    """A transfer has taken longer than its limits; the message says what came in what time."""


class _Download:
    """One file from a server, read by a thread while this one watches the time.

    A name look-up has no time limit, and a socket's limit starts again with every byte and for
    every address of a server.

    Args:
        address: the file's.
        limits: for the transfer.
        deadline: latest end, on the monotonic clock.
    """

    def __init__(self, address: str, limits: TransferLimits, deadline: float) -> None:
        self._address = address
        self._limits = limits
        self._deadline = deadline
        self._answer: queue.SimpleQueue[int | Exception | None] = queue.SimpleQueue()
        self._pieces: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()
        self._abandoned = threading.Event()

    def read(self, name: str, progress: Progress) -> bytes:
        """The whole file.

        Args:
            name: the file's, for the progress.
            progress: called after each piece.

        Raises:
            TooSlow: it came more slowly than the limits allow.
            NotMnistError: it is larger than any file of MNIST.
            OSError, HTTPException, ValueError: the server cannot be reached or refuses.
        """
        threading.Thread(target=self._fetch, daemon=True, name=f"get {self._address}").start()
        try:
            total_bytes = self._wait_for_answer()
            content = bytearray()
            for piece in self._pieces_in_time():
                content += piece
                if len(content) > _LARGEST_BYTES:
                    limit = f"more than {_LARGEST_BYTES:,} bytes"
                    raise NotMnistError(f"{self._address} is not MNIST: {limit}")
                progress(name, len(content), total_bytes)
            return bytes(content)
        finally:
            self._abandoned.set()

    def _wait_for_answer(self) -> int | None:
        """The length that the server announces; None where it does not."""
        seconds = min(self._limits.open_seconds, self._deadline - time.monotonic())
        try:
            answer = self._answer.get(timeout=max(0.0, seconds))
        except queue.Empty:
            raise TimeoutError(f"no answer within {self._limits.open_seconds:g} s") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _pieces_in_time(self) -> Iterator[bytes]:
        """The pieces of the file, as long as they come fast enough."""
        limits, began, done_bytes = self._limits, time.monotonic(), 0
        while True:
            due_seconds = limits.stall_seconds + done_bytes / limits.slowest_bytes_per_second
            count = f"{done_bytes:,} bytes"
            ends = {
                began + due_seconds: f"{count} in {due_seconds:.3g} s",
                time.monotonic() + limits.stall_seconds: (
                    f"nothing for {limits.stall_seconds:g} s after {count}"
                ),
                self._deadline: f"not done within {limits.total_seconds:g} s",
            }
            end = min(ends)
            try:
                piece = self._pieces.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise TooSlow(ends[end]) from None
            if isinstance(piece, Exception):
                raise piece
            if not piece:
                return
            done_bytes += len(piece)
            yield piece

    def _fetch(self) -> None:
        """In the thread: put the length, then the pieces and an empty one; or an error."""
        try:
            # Longer than the other thread waits: that one says what has come before.
            timeout = self._limits.stall_seconds + _STALL_MARGIN_SECONDS
            with urlopen(self._address, timeout=timeout) as response:
                length = response.headers.get("Content-Length")
                self._answer.put(int(length) if length else None)
                # One piece at a time: what has come must be seen, however little it is.
                while not self._abandoned.is_set():
                    piece = response.read1(_CHUNK_BYTES)
                    self._pieces.put(piece)
                    if not piece:
                        return
        except _UNREACHABLE as error:
            if isinstance(error, HTTPError):
                error.close()  # it holds the connection
            self._answer.put(error)
            self._pieces.put(error)


def _unpack(packed: bytes, file: IdxFile) -> bytes:
    """Unpack at most one byte more than the file has: a hostile archive must not fill memory."""
    try:
        return zlib.decompressobj(wbits=31).decompress(packed, file.size_bytes + 1)
    except zlib.error:
        # Not an archive: some networks answer every request with their own page.
        return packed


def _reason(error: Exception) -> str:
    """Why a server does not work, in a few words: its answer may be of any length and content."""
    if isinstance(error, HTTPError):
        return shortened(f"HTTP status {error.code} {error.reason}")
    if isinstance(error, HTTPException):
        return shortened(f"its answer is not HTTP: {error}")
    return shortened(str(getattr(error, "reason", "")) or str(error) or type(error).__name__)
