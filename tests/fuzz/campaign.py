"""Gives mutated files to readers, and says which promises were broken."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.fuzz.promises import BrokenPromise, Target

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

MOST_BYTES = 512 * 1024**2
"""Most bytes of address space that reading a file may take, beyond what the process has; the
allocator takes some more than it is asked for."""
_WRITES = ("os.mkdir", "os.rename", "os.remove", "os.symlink", "os.link", "os.truncate")
"""Events of Python by which something is written, beside ``open``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A promise that was broken."""

    number: int
    """Number of the input: with the seed it makes the input again."""
    content: bytes
    """The input."""
    what: str
    """What the reader did."""


@dataclass(slots=True)
class _Watch:
    """Where a reader may write; None while nobody is watched."""

    folder: str | None = None


_watch = _Watch()


def content_of(target: Target, seed: int, number: int) -> bytes:
    """The input of a number: always the same."""
    rng = random.Random(f"{seed} {target.name} {number}")
    return target.mutate(rng, rng.choice(_corpus_of(target)))


@cache
def _corpus_of(target: Target) -> Sequence[bytes]:
    """Its files that are read as they are: some take long to make."""
    return target.corpus()


def violation(target: Target, content: bytes) -> str | None:
    """What the reader did that it may not; None where it keeps its promise."""
    seconds = 0.0
    for _ in range(2):  # once more where it took long: the machine may have been busy
        with tempfile.TemporaryDirectory(prefix="mnist-bench-fuzz-") as folder:
            _watch.folder = folder
            begin = time.process_time()
            try:
                with warnings.catch_warnings(action="error"):  # a reader's one word is its error
                    target.read(Path(folder), content)
            except BrokenPromise as error:
                return str(error)
            except target.refusals:
                pass
            except (Exception, SystemExit) as error:
                return "".join(traceback.format_exception(error)[-3:])[-3000:]
            finally:
                seconds = time.process_time() - begin
                _watch.folder = None
        if seconds <= target.seconds:
            return None
    return f"it took {seconds:.1f} s of CPU time"


def watch_writes() -> None:
    """Have readers fail that write elsewhere; for as long as the process lives."""
    sys.addaudithook(_refuse_to_write_elsewhere)


def _refuse_to_write_elsewhere(event: str, arguments: tuple[object, ...]) -> None:
    if _watch.folder is None or event not in ("open", *_WRITES):
        return
    path = arguments[0]
    if not isinstance(path, str | bytes | os.PathLike):  # a descriptor, opened before
        return
    if event == "open":
        flags = arguments[2]
        if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
    # Python keeps what it has compiled of a module that is imported late.
    kept = (_watch.folder, os.devnull)
    if not os.fsdecode(path).startswith(kept) and "__pycache__" not in os.fsdecode(path):
        raise BrokenPromise(f"{event} of {os.fsdecode(path)!r}")


@contextlib.contextmanager
def limited_memory() -> Iterator[None]:
    """Let this process have only so much more memory: what takes more fails."""
    if sys.platform != "linux":
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def fuzz(target: Target, seed: int, numbers: Iterable[int]) -> Iterator[Broken | None]:
    """Give inputs to a reader, one for each number.

    Yields:
        For each input the promise that was broken; None where none was.
    """
    for content in _corpus_of(target):  # imports what is imported late, outside of the limit
        violation(target, content)
    for number in numbers:
        content = content_of(target, seed, number)
        with limited_memory():
            what = violation(target, content)
        yield Broken(number=number, content=content, what=what) if what else None
