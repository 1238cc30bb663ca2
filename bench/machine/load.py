"""How busy the machine was during a run, and how much of that the run itself caused."""

from __future__ import annotations

import os
import resource
import sys
import time
from contextlib import suppress

import psutil

from bench.records.schema import Load


class LoadMeter:
    """Measures how busy the machine is from `start` to `stop`, and how much this run causes.

    `busy_seconds - own_seconds` is the load of others: core-seconds of other programs and of the
    hypervisor. The record has both, so that a reader can judge.
    """

    def __init__(self) -> None:
        """Not started."""
        self._average: float | None = None
        self._busy = (0.0, 0.0)
        self._own = 0.0
        self._began = 0.0

    def start(self) -> None:
        """Begin to measure."""
        self._average = _load_average()
        self._busy = _busy_and_all_seconds()
        self._own = own_cpu_seconds()
        # This is not a lap, so it does not wait for the device.
        self._began = time.monotonic()

    def own_cpu_seconds(self) -> float:
        """Core-seconds that this process and its children have used since `start`."""
        return max(0.0, own_cpu_seconds() - self._own)

    def stop(self, own_seconds: float | None = None) -> Load:
        """Stop measuring.

        Args:
            own_seconds: core-seconds of all ranks on this machine; None to use this process's.
        """
        own = self.own_cpu_seconds() if own_seconds is None else own_seconds
        elapsed = time.monotonic() - self._began
        busy, total = (
            now - then for now, then in zip(_busy_and_all_seconds(), self._busy, strict=True)
        )
        return Load(
            load_average_before=self._average,
            load_average_after=_load_average(),
            # In sandboxes without their own /proc/stat, the counters do not change.
            busy_seconds=max(0.0, busy) if total > 0 else None,
            own_seconds=own,
            elapsed_seconds=elapsed,
        )


def own_cpu_seconds() -> float:
    """Core-seconds that this process and its children have used; ended children count too."""
    seconds = 0.0
    for scope in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(scope)
        seconds += usage.ru_utime + usage.ru_stime
    # RUSAGE_CHILDREN has ended children only. Living ones (a DataLoader's workers) are added here.
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            times = child.cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


def _busy_and_all_seconds() -> tuple[float, float]:
    """Core-seconds of the usable cores since boot: busy or stolen, and in total."""
    cores = psutil.cpu_times(percpu=True)
    if sys.platform == "linux":
        usable = os.sched_getaffinity(0)
        cores = [times for index, times in enumerate(cores) if index in usable]
    busy = total = 0.0
    for times in (core._asdict() for core in cores):
        # Linux counts the time of a guest in "user" and "nice" as well.
        elapsed = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)
        busy += elapsed - times["idle"] - times.get("iowait", 0.0)
        total += elapsed
    return busy, total


def _load_average() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None
