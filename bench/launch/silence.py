"""A process that a signal has stopped, or that does not end after its work, is not waited for."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from subprocess import Popen

SILENCE_SECONDS = 125.0
"""Seconds of silence after which a process is ended. Ranks wait 120 s for each other: where one has
waited in vain, it says so first. What is promised is an end within 130 s."""
LOOK_SECONDS = 1.0
"""Seconds from one look at the processes to the next: they measure."""


class Silences:
    """For how long processes have been silent while this one was running.

    Where a user stops all of a job (Ctrl-Z), this process is stopped too: that time does not count.

    Args:
        limit_seconds: silence that is too long.
    """

    def __init__(self, limit_seconds: float) -> None:
        self._limit_seconds = limit_seconds
        self._looked = time.monotonic()
        self._seconds: dict[int, float] = {}

    def too_long(
        self, processes: Iterable[Popen[bytes]], done: Collection[int] = ()
    ) -> list[Popen[bytes]]:
        """Those that have been silent for too long; to be asked again and again.

        Args:
            processes: children of this process.
            done: ids of those that have nothing left to do and should end.
        """
        elapsed = time.monotonic() - self._looked
        if elapsed < LOOK_SECONDS:
            return []
        self._looked += elapsed
        # Most of a longer time this process was stopped itself.
        counted = min(elapsed, 2 * LOOK_SECONDS)
        silent = []
        for process in processes:
            if process.returncode is None and (process.pid in done or is_stopped(process.pid)):
                self._seconds[process.pid] = self._seconds.get(process.pid, 0.0) + counted
                if self._seconds[process.pid] >= self._limit_seconds:
                    silent.append(process)
            else:
                self._seconds.pop(process.pid, None)
        return silent


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped a process."""
    import psutil  # only here: it is slow to import

    with suppress(psutil.Error):
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    return False
