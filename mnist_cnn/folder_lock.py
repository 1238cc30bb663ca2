"""The lock of a folder that one process at a time may change, and who holds it.

The system releases the lock of a process that has ended, however it ended. So who waits, waits for
a process that lives: it is named, and one that is stopped is not waited for.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import filelock
import psutil

from mnist_cnn.disk import read_text, refuse_link, replace_file
from mnist_cnn.errors import UsageError
from mnist_cnn.escaping import printable

LONGEST_SECONDS = 1800.0
"""Longest wait: as long as the holder's own sources may take (`mnist_cnn.data.limits`)."""
STOPPED_SECONDS = 10.0
"""Longest wait for a stopped process to go on."""
_POLL_SECONDS = 0.5
_LARGEST_BYTES = 4096
"""Most bytes of the file that names the holder."""
_SAME_START_SECONDS = 2.0
"""Largest difference between two readings of the time at which one process was started."""

HolderState = Literal["alive", "stopped", "gone", "on another machine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The process that holds a lock, as it described itself."""

    pid: int
    """Its process id."""
    host: str
    """Name of its machine."""
    started: float
    """Time at which it was started, in seconds since 1970: a process id is used again."""

    @classmethod
    def this_process(cls) -> Holder:
        """This process."""
        started = psutil.Process().create_time()
        return cls(pid=os.getpid(), host=socket.gethostname(), started=started)

    @classmethod
    def read(cls, path: Path) -> Holder | None:
        """The holder that a file names; None where there is none or it cannot be read."""
        with suppress(OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
            values = json.loads(read_text(path, _LARGEST_BYTES))
            return cls(
                pid=int(values["pid"]),
                host=str(values["host"]),
                started=float(values["started"]),
            )
        return None

    def state(self) -> HolderState:
        """What it does now; of another machine's processes this one knows nothing."""
        if self.host != socket.gethostname():
            return "on another machine"
        try:
            process = psutil.Process(self.pid)
            status = process.status()
            if abs(process.create_time() - self.started) > _SAME_START_SECONDS:
                return "gone"
        except (psutil.Error, ValueError, OverflowError):
            return "gone"
        if status in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP):
            return "stopped"
        return "gone" if status == psutil.STATUS_ZOMBIE else "alive"


@contextmanager
def locked(
    folder: Path,
    notify: Callable[[str], None],
    *,
    purpose: str,
    longest_seconds: float = LONGEST_SECONDS,
    stopped_seconds: float = STOPPED_SECONDS,
) -> Iterator[None]:
    """Hold the lock of a folder, which is made where it does not exist.

    Args:
        folder: only the holder of its lock changes it.
        notify: called with one line where this process waits: for whom, and what to do.
        purpose: what its holder does, for that line: ``"downloads MNIST"``.
        longest_seconds: longest wait.
        stopped_seconds: longest wait for a holder that is stopped.

    Raises:
        UsageError: another process holds the lock and is stopped, or holds it too long.
        OSError, NotImplementedError: the folder cannot be written to, or has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, holder_path = folder / ".lock", folder / ".lock.holder"
    refuse_link(path)
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:

        def tell_of(holder: Holder | None, state: HolderState | None) -> None:
            notify(printable(_notice(purpose, holder, state, longest_seconds)))

        _wait(lock, holder_path, tell_of, longest_seconds, stopped_seconds)
    try:
        replace_file(holder_path, json.dumps(asdict(Holder.this_process())).encode())
        yield
    finally:
        # First: who then takes the lock writes its own.
        with suppress(OSError):
            holder_path.unlink(missing_ok=True)
        lock.release()


def _wait(
    lock: filelock.BaseFileLock,
    holder_path: Path,
    tell_of: Callable[[Holder | None, HolderState | None], None],
    longest_seconds: float,
    stopped_seconds: float,
) -> None:
    """Wait for the lock, and tell once of its holder; other arguments and errors as `locked`."""
    began = time.monotonic()
    is_told = False
    stopped_since: float | None = None
    while True:
        holder = Holder.read(holder_path)
        state = None if holder is None else holder.state()
        waited = time.monotonic() - began
        # Who has just taken the lock has not written its name yet.
        if not is_told and (holder is not None or waited >= _POLL_SECONDS):
            tell_of(holder, state)
            is_told = True
        if state != "stopped":
            stopped_since = None
        elif stopped_since is None:
            stopped_since = time.monotonic()
        elif holder is not None and time.monotonic() - stopped_since >= stopped_seconds:
            raise UsageError(
                f"process {holder.pid} holds {lock.lock_file} and is stopped; let it go on with "
                f"`kill -CONT {holder.pid}`, or end it with `kill -9 {holder.pid}`"
            )
        if waited >= longest_seconds:
            raise UsageError(
                f"{_name(holder, state)} has held {lock.lock_file} for "
                f"{longest_seconds / 60:.3g} minutes; end it and try again"
            )
        with suppress(filelock.Timeout):
            lock.acquire(timeout=_POLL_SECONDS)
            return


def _name(holder: Holder | None, state: HolderState | None) -> str:
    if holder is None:
        return "another process"
    if state == "on another machine":
        return f"process {holder.pid} on {holder.host}"
    if state == "gone":
        # The system has released its lock: one that gives no name has taken it since.
        return f"another process than {holder.pid}, which held it before and is gone"
    return f"process {holder.pid}"


def _notice(
    purpose: str, holder: Holder | None, state: HolderState | None, longest_seconds: float
) -> str:
    """For whom this process waits, and what the user can do."""
    remedy = f"at most {longest_seconds / 60:.3g} minutes; end it to go on at once"
    if state == "stopped" and holder is not None:
        remedy = f"it is stopped; let it go on with `kill -CONT {holder.pid}` or end it"
    return f"waiting for another process that {purpose}: {_name(holder, state)}; {remedy}"
