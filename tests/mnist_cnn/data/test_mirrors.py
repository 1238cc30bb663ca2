"""Servers that are slow, silent or hostile: each is left in time, with one line about it."""

from __future__ import annotations

import re

import pytest

from mnist_cnn.data import files
from mnist_cnn.data.limits import TransferLimits
from mnist_cnn.data.mirrors import from_mirrors
from tests.stand_ins.servers import (
    HEADERS,
    answering_server,
    silent_server,
    trickling_server,
)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")


def problems_of(
    monkeypatch: pytest.MonkeyPatch, address: str, limits: TransferLimits
) -> tuple[list[str], list[int]]:
    """What is said of a mirror that has nothing, and the bytes of its progress."""
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "mirrors", [address])
    problems: list[str] = []
    done: list[int] = []

    def progress(_what: str, done_bytes: int, _total_bytes: int | None) -> None:
        done.append(done_bytes)

    assert list(from_mirrors(files.FILES, progress, problems, limits)) == []
    return problems, done


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        (
            TransferLimits(stall_seconds=1, slowest_bytes_per_second=1e3),
            r"is too slow \(\d+ bytes in 1(\.\d+)? s\)",
        ),
        (
            TransferLimits(stall_seconds=1, slowest_bytes_per_second=1e-3, total_seconds=1.5),
            r"is too slow \(not done within 1\.5 s\)",
        ),
    ],
    ids=["too low a rate", "too long in all"],
)
def test_a_mirror_that_trickles_is_left(
    limits: TransferLimits, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every pause is short: no limit of a single read would ever end it."""
    with trickling_server() as address:
        (problem,), done = problems_of(monkeypatch, address, limits)
    assert problem.startswith(address)
    assert re.search(complaint, problem)
    assert len(done) > 1


def test_headers_that_trickle_are_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with trickling_server(HEADERS[:40]) as address:
        limits = TransferLimits(open_seconds=0.3)
        assert problems_of(monkeypatch, address, limits) == (
            [f"{address} cannot be reached (no answer within 0.3 s)"],
            [],
        )


def test_one_that_falls_silent_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with silent_server(HEADERS + bytes(200_000)) as address:
        limits = TransferLimits(stall_seconds=1)  # a busy machine takes less for the bytes
        (problem,), _ = problems_of(monkeypatch, address, limits)
    assert problem == f"{address} is too slow (nothing for 1 s after 200,000 bytes)"


STATUS = b"HTTP/1.1 404 "
END = b"\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (STATUS + b"x" * 60_000 + END, "HTTP status 404 xxx"),
        (STATUS + b"gone\x1b]0;title\x07 \x00\x01" + END, "HTTP status 404 gone"),
        (b"\x00\x01\x02\x1b[31m\x9b2J garbage\r\n\r\n", "its answer is not HTTP: garbage"),
        (b"y" * 60_000 + END, "its answer is not HTTP: yyy"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"z" * 70_000 + END, "its answer is not HTTP: got more than"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: \x1b[1mmany\r\n\r\n", "invalid literal"),
        (b"HTTP/1.1 302 Found\r\nLocation: gopher://x/\x1b[1m" + END, "HTTP status 302"),
        (b"", "Remote end closed connection without response"),
    ],
    ids=["long status", "escapes", "garbage", "long line", "long header", "length", "away", "none"],
)
def test_what_a_server_says_is_one_short_line_that_no_terminal_obeys(
    answer: bytes, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering_server(answer) as address:
        (problem,), _ = problems_of(monkeypatch, address, TransferLimits())
    assert complaint in problem
    assert len(problem) < 300
    assert problem.isprintable()


def test_the_limits_allow_all_that_the_lock_waits_for() -> None:
    """Who waits for the lock waits as long as its holder may take: two mirrors and the index."""
    from mnist_cnn.folder_lock import LONGEST_SECONDS

    assert 3 * TransferLimits().total_seconds <= LONGEST_SECONDS
