"""Every reader keeps its promises for a few mutated files; `./scripts/fuzz` gives it many."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mnist_cnn.errors import UsageError
from tests.fuzz.campaign import content_of, fuzz, watch_writes
from tests.fuzz.promises import Target
from tests.fuzz.targets import targets

TARGETS = targets()
SEED = 1


@pytest.fixture(scope="module", autouse=True)
def watched() -> None:
    """A reader that writes elsewhere fails; outside of a reader this does nothing."""
    watch_writes()


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@pytest.mark.filterwarnings("default")  # as in a command
def test_a_reader_keeps_its_promises(target: Target) -> None:
    broken = [one for one in fuzz(target, SEED, range(target.inputs_in_tests)) if one is not None]
    assert broken == []


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_equal_seeds_make_equal_files(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    first, now = content_of(target, SEED, 3), time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    assert content_of(target, SEED, 3) == first
    assert content_of(target, SEED, 3) != content_of(target, SEED, 4)


def reads(read: Callable[[Path, bytes], object]) -> Target:
    return Target(
        name="x", corpus=lambda: [b"x"], mutate=lambda _, content: content, read=read, seconds=0.2
    )


def refuse(_: Path, content: bytes) -> None:
    raise UsageError("no")


def fail(_: Path, content: bytes) -> None:
    raise KeyError("unexpected")


def dally(_: Path, content: bytes) -> None:
    begin = time.process_time()
    while time.process_time() - begin < 0.3:
        pass


def take_memory(_: Path, content: bytes) -> None:
    bytearray(1 << 30)


def write_elsewhere(folder: Path, content: bytes) -> None:
    folder.with_name("elsewhere").write_bytes(content)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
@pytest.mark.parametrize(
    ("read", "what"),
    [
        (fail, "KeyError"),
        (dally, "of CPU time"),
        (take_memory, "MemoryError"),
        (write_elsewhere, "open of"),
    ],
)
def test_a_promise_that_is_broken_is_seen(read: Callable[[Path, bytes], object], what: str) -> None:
    (broken,) = fuzz(reads(read), SEED, [7])
    assert broken is not None
    assert (broken.number, broken.content) == (7, b"x")
    assert what in broken.what


def test_a_promise_that_is_kept_is_none() -> None:
    assert list(fuzz(reads(refuse), SEED, range(3))) == [None] * 3
