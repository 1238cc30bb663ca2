"""What a reader promises, and how a broken promise is told."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mnist_cnn.errors import UsageError

Corpus = Callable[[], Sequence[bytes]]
"""Gives files or texts that a reader reads as they are."""
Mutate = Callable[[random.Random, bytes], bytes]
"""Changes one of them."""
Read = Callable[[Path, bytes], object]
"""Writes a content to an empty folder where files are read, and calls the reader."""


class BrokenPromise(Exception):
    """A reader did not keep what it promises; the message says what it did instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A reader, files that it reads, and how they are changed."""

    name: str
    corpus: Corpus
    mutate: Mutate
    read: Read
    refusals: tuple[type[Exception], ...] = (UsageError,)
    """What the reader may raise."""
    seconds: float = 1.0
    """Most CPU seconds for a file of `tests.fuzz.mutations.LARGEST` bytes."""
    inputs_in_tests: int = 30
    """Number of inputs in the tests."""


def expect(kept: bool, what: str) -> None:
    """Raise where a promise is broken."""
    if not kept:
        raise BrokenPromise(what)


def expect_line(text: str) -> None:
    """Check that a text is one line, not too long, without control characters."""
    expect(text.isprintable(), f"it is no printable line: {text[:200]!r}")
    expect(len(text) < 1000, f"it has {len(text):,} letters")


def written(folder: Path, name: str, content: bytes) -> Path:
    """The content as a file."""
    path = folder / name
    path.write_bytes(content)
    return path
