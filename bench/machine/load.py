"""How busy the machine was, and how much of that was this run."""

from __future__ import annotations

import os
import resource
import sys
import time
from contextlib import suppress

import psutil

from bench.records.schema import Load


class LoadMeter:
    """How much the machine did in a span of time, and how much of it was this run.

    `busy_seconds - own_seconds` is what others took: the core-seconds in which cores were busy
    elsewhere, or the hypervisor had them. Both are kept, so that a reader can judge.
    """

    def __init__(self) -> None:
        """Not started."""
        self._average: float | None = None
        self._busy = (0.0, 0.0)
        self._own = 0.0
        self._began = 0.0

    def start(self) -> None:
        """The span begins."""
        self._average = _load_average()
        self._busy = _busy_and_all_seconds()
        self._own = own_cpu_seconds()
        # The length of this span, not a lap: no device is waited for.
        self._began = time.monotonic()

    def own_cpu_seconds(self) -> float:
        """Core-seconds that this process and its children have used since `start`."""
        return max(0.0, own_cpu_seconds() - self._own)

    def stop(self, own_seconds: float | None = None) -> Load:
        """The span ends.

        Args:
            own_seconds: what all ranks on this machine used together, of several.
        """
        own = self.own_cpu_seconds() if own_seconds is None else own_seconds
        elapsed = time.monotonic() - self._began
        busy, total = (
            now - then for now, then in zip(_busy_and_all_seconds(), self._busy, strict=True)
        )
        return Load(
            load_average_before=self._average,
            load_average_after=_load_average(),
            # Sandboxes without a /proc/stat of their own show counters that stand still.
            busy_seconds=max(0.0, busy) if total > 0 else None,
            own_seconds=own,
            elapsed_seconds=elapsed,
        )


def own_cpu_seconds() -> float:
    """Core-seconds used so far by this process and its children, living and ended."""
    seconds = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        seconds += usage.ru_utime + usage.ru_stime
    # What ended children used is in RUSAGE_CHILDREN once they have been waited for; those that
    # live (a DataLoader's workers) are asked themselves.
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            times = child.cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


def _busy_and_all_seconds() -> tuple[float, float]:
    """Seconds since boot in which the usable cores were busy (or stolen), and all that passed."""
    cores = psutil.cpu_times(percpu=True)
    if sys.platform == "linux":
        usable = os.sched_getaffinity(0)
        cores = [times for index, times in enumerate(cores) if index in usable]
    busy = total = 0.0
    for times in (core._asdict() for core in cores):
        # Linux counts a guest's time into user and nice as well.
        passed = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)
        busy += passed - times["idle"] - times.get("iowait", 0.0)
        total += passed
    return busy, total


def _load_average() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None
