"""Which rank of this machine ended first, and how: the others see only a lost connection.

Each end is a file in the guardian's folder, written by the rank itself where it can and by its
parent where it cannot.
"""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path

import psutil

from bench.measure.guard_folder import guard_folder
from mnist_cnn.disk import read_file, replace_file
from mnist_cnn.rank import Rank

WAIT_SECONDS = 5.0
"""Longest time that a rank waits to learn which other one ended. Its parent looks at once; the rank
itself may have to say it first."""
_POLL_SECONDS = 0.05
_STOPPED_SECONDS = 1.0
"""Seconds of waiting after which a rank that is stopped is taken to be the cause."""
_LARGEST_BYTES = 64 * 1024
RANKS_NAME = "ranks"
"""File in the folder of a guardian whose child is the supervisor of ranks."""
STOPPED = "was stopped (SIGSTOP) and did not answer"
"""What is reported of a rank that a signal has stopped."""
DID_NOT_END = "did not end after rank 0 had"
"""What is reported of a rank that has nothing left to do and is still there."""
MEMORY_RAN_OUT = ": the system was out of memory"
"""Ends the report of a rank that the system has ended for that reason."""
_LOST = re.compile(
    r"^Dist\w*Error|gloo|nccl|connection (?:closed|reset|refused)|broken pipe|timed out|socket"
    r"|\b(?:tcp)?store\b|by peer",
    re.IGNORECASE,
)
"""What a lost connection is called in the messages of gloo, NCCL and torch's stores."""


class EndKind(IntEnum):
    """How a rank ended; of several that ended, the first of the lowest kind is the cause."""

    STOPPED = 0
    """It still exists, but a signal has stopped it or it hangs: others have waited in vain."""
    CAUSE = 1
    """By a signal, or by an error of its own."""
    INTERRUPTED = 2
    """It was asked to end."""
    LEFT = 3
    """With an exit status, and without a word: it may have lost another rank itself."""


@dataclass(frozen=True, slots=True)
class RankEnd:
    """The end of one rank."""

    rank: int
    kind: int
    """One of `EndKind`."""
    what: str
    """Completes a sentence that begins with the rank: ``"was ended by SIGKILL"``."""
    at: float
    """When it was noticed, by the machine's clock that never runs backwards."""

    def __str__(self) -> str:
        """``"rank 1 was ended by SIGKILL"``."""
        return f"rank {self.rank} {self.what}"


class LostRankError(Exception):
    """Another rank is gone, so this one cannot go on. The message says which, and how it ended."""


def announce_rank() -> None:
    """Let others see whether this rank is stopped."""
    rank, folder = Rank.from_environment(), guard_folder()
    if folder is not None and rank.world_size > 1:
        with suppress(OSError):  # a full disk
            replace_file(folder / f"rank-{rank.index}.pid", str(os.getpid()).encode())


def report_end(
    rank: int, kind: EndKind, what: str, folder: Path | None = None, at: float | None = None
) -> None:
    """Say that a rank has ended, or is about to.

    Args:
        rank: its index.
        kind: how it ended.
        what: see `RankEnd`.
        folder: the guardian's folder; None for that of this process.
        at: see `RankEnd`; None for now.
    """
    folder = folder or guard_folder()
    if folder is None:
        return
    end = RankEnd(rank, int(kind), what, time.monotonic() if at is None else at)
    with suppress(OSError):  # a full disk: the end itself is not lost, only its cause
        replace_file(folder / f"rank-{rank}-{kind.name}.end", json.dumps(asdict(end)).encode())


def reported_ends(folder: Path | None = None) -> list[RankEnd]:
    """The ends that have been reported, the cause of the others first."""
    folder = folder or guard_folder()
    ends = []
    for path in sorted(folder.glob("rank-*.end")) if folder is not None else []:
        with suppress(OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
            values = json.loads(read_file(path, _LARGEST_BYTES))
            rank, kind, at = int(values["rank"]), int(values["kind"]), float(values["at"])
            ends.append(RankEnd(rank, kind, str(values["what"]), at))
    return sorted(ends, key=lambda end: (end.kind, end.at))


def first_end(wait_seconds: float = WAIT_SECONDS) -> RankEnd | None:
    """Which other rank of this machine ended first, or is stopped.

    Args:
        wait_seconds: longest time to wait for somebody to say it.

    Returns:
        None where nobody has, or without a guardian.
    """
    if guard_folder() is None:
        return None
    own = Rank.from_environment().index
    began = time.monotonic()
    while True:
        others = [end for end in reported_ends() if end.rank != own]
        # One that left without a word is no cause while another may still tell one.
        sure = [end for end in others if end.kind != EndKind.LEFT]
        waited = time.monotonic() - began
        if sure or waited >= wait_seconds:
            return next(iter(sure or others), None)
        if waited >= _STOPPED_SECONDS and (stopped := stopped_ranks()):
            return RankEnd(stopped[0], int(EndKind.STOPPED), STOPPED, time.monotonic())
        time.sleep(_POLL_SECONDS)


def stopped_ranks(folder: Path | None = None) -> list[int]:
    """Indices of the ranks of this machine that a signal has stopped."""
    folder = folder or guard_folder()
    stopped = []
    for path in folder.glob("rank-*.pid") if folder is not None else []:
        with suppress(OSError, ValueError, psutil.Error):
            process = psutil.Process(int(read_file(path, _LARGEST_BYTES)))
            if process.status() == psutil.STATUS_STOPPED:
                stopped.append(int(path.stem.removeprefix("rank-")))
    return sorted(stopped)


def is_lost_connection(error: BaseException | None) -> bool:
    """Whether an error only says that another rank does not answer."""
    if error is None or Rank.from_environment().world_size == 1:
        return False
    if isinstance(error, LostRankError):
        return True
    is_of_torch = type(error).__module__.startswith("torch") or isinstance(error, RuntimeError)
    return is_of_torch and _LOST.search(f"{type(error).__name__} {error}") is not None
