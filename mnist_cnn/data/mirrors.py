"""Downloads MNIST from torchvision's web servers."""

from __future__ import annotations

import queue
import threading
import zlib
from collections.abc import Iterator, Sequence
from http.client import HTTPException, HTTPResponse
from urllib.error import HTTPError
from urllib.request import urlopen

from mnist_cnn.data.files import IdxFile, NotMnistError, VerifiedFile, verify
from mnist_cnn.data.progress import Progress

OPEN_SECONDS = 6.0
"""Longest time for the name look-up, the connection and the first answer together: behind a closed
network, the next source must follow within seconds."""
_STALL_SECONDS = 15.0
"""Longest pause in a transfer."""
_LARGEST_BYTES = 32 << 20
"""Largest accepted download; no gzipped file of MNIST has more than 10 MB."""
_CHUNK_BYTES = 1 << 18
_UNREACHABLE = (OSError, HTTPException, ValueError)
"""Exceptions of urllib for networks and servers that do not work."""


def from_mirrors(
    wanted: Sequence[IdxFile], progress: Progress, problems: list[str]
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
        reason = " ".join(str(error).split())  # a loader's message has many lines
        problems.append(f"torchvision, which knows the mirrors, cannot be imported ({reason})")
        return
    missing = list(wanted)
    for mirror in MNIST.mirrors:
        for file in tuple(missing):
            address = f"{mirror}{file.name}.gz"
            try:
                packed = _download(address, file.name, progress)
                verified = verify(_unpack(packed, file), file, address)
            except NotMnistError as error:
                problems.append(str(error))
                break
            except _UNREACHABLE as error:
                problems.append(f"{mirror} cannot be reached ({_reason(error)})")
                break
            missing.remove(file)
            yield verified, address


def _download(address: str, name: str, progress: Progress) -> bytes:
    chunks: list[bytes] = []
    done_bytes = 0
    with _open(address) as response:
        length = response.headers.get("Content-Length")
        total_bytes = int(length) if length else None
        while chunk := response.read(_CHUNK_BYTES):
            chunks.append(chunk)
            done_bytes += len(chunk)
            if done_bytes > _LARGEST_BYTES:
                raise NotMnistError(f"{address} is not MNIST: more than {_LARGEST_BYTES} bytes")
            progress(name, done_bytes, total_bytes)
    return b"".join(chunks)


def _open(address: str) -> HTTPResponse:
    """The response, or an error, within OPEN_SECONDS.

    It opens in a thread: a name look-up has no time limit, and a socket's limit starts again for
    each address of a server.
    """
    outcome: queue.SimpleQueue[HTTPResponse | Exception] = queue.SimpleQueue()

    def open_() -> None:
        try:
            outcome.put(urlopen(address, timeout=_STALL_SECONDS))
        except _UNREACHABLE as error:
            outcome.put(error)

    threading.Thread(target=open_, daemon=True, name=f"open {address}").start()
    try:
        response = outcome.get(timeout=OPEN_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"no answer within {OPEN_SECONDS:g} s") from None
    if isinstance(response, Exception):
        if isinstance(response, HTTPError):
            response.close()  # it holds the connection
        raise response
    return response


def _unpack(packed: bytes, file: IdxFile) -> bytes:
    """Unpack at most one byte more than the file has: a hostile archive must not fill memory."""
    try:
        return zlib.decompressobj(wbits=31).decompress(packed, file.size_bytes + 1)
    except zlib.error:
        # Not an archive: some networks answer every request with their own page.
        return packed


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", "")) or str(error) or type(error).__name__
