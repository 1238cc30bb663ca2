"""How busy the machine was during a run, and how much of that the run itself caused."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.machine import cgroups, cores
from bench.records.schema import Load
from bench.stats.sums import exact_sum

_TICK_SECONDS = 0.02
"""What the counters of one core may be wrong by: two of the kernel's ticks."""


@dataclass(frozen=True, slots=True)
class _Allowance:
    """What the process may use at one moment."""

    affinity: frozenset[int] | None
    """Numbers of the cores it may run on; None where the system has no affinity."""
    quota_cores: float | None
    throttled_seconds: dict[str, float]
    """Seconds so far in which a quota stopped threads, by control group."""

    @property
    def cores(self) -> int | None:
        """Number of the cores it may run on."""
        return None if self.affinity is None else len(self.affinity)


class LoadMeter:
    """Measures how busy the machine is from `start` to `stop`, and how much this run causes.

    `busy_seconds - own_seconds` is the load of others: core-seconds of other programs and of the
    hypervisor. The record has both, so that a reader can judge.
    """

    def __init__(self, membership: Path = cgroups.MEMBERSHIP, mount: Path = cgroups.MOUNT) -> None:
        """Not started.

        Args:
            membership: the file that lists the control groups of this process.
            mount: the folder where control groups are mounted.
        """
        self._membership, self._mount = membership, mount
        self._average: float | None = None
        self._counters: Sequence[tuple[float, float]] = ()
        self._allowance = _Allowance(None, None, {})
        self._own = 0.0
        self._began = 0.0

    def start(self) -> None:
        """Begin to measure."""
        self._average = _load_average()
        self._allowance = self._read_allowance()
        self._counters = _busy_and_all_seconds()
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
        counters = _busy_and_all_seconds()
        before, after = self._allowance, self._read_allowance()
        affinity = None
        if before.affinity is not None and after.affinity is not None:
            # The same cores at both ends: the run may have used any of them.
            affinity = before.affinity | after.affinity
        return Load(
            load_average_before=self._average,
            load_average_after=_load_average(),
            busy_seconds=_busy_seconds(self._counters, counters, affinity),
            own_seconds=own,
            elapsed_seconds=elapsed,
            usable_cores_before=before.cores,
            usable_cores_after=after.cores,
            quota_cores_before=before.quota_cores,
            quota_cores_after=after.quota_cores,
            throttled_seconds=cores.longest_throttled_seconds(
                before.throttled_seconds, after.throttled_seconds
            ),
        )

    def _read_allowance(self) -> _Allowance:
        groups = self._membership, self._mount
        return _Allowance(
            cores.affinity_cores(),
            cores.cgroup_quota_cores(*groups),
            cores.cgroup_throttled_seconds(*groups),
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


def _busy_and_all_seconds() -> list[tuple[float, float]]:
    """Seconds of each core since boot: busy or stolen, and in total."""
    seconds = []
    for times in (core._asdict() for core in psutil.cpu_times(percpu=True)):
        # Linux counts the time of a guest in "user" and "nice" as well.
        total = exact_sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)
        seconds.append((total - times["idle"] - times.get("iowait", 0.0), total))
    return seconds


def _busy_seconds(
    before: Sequence[tuple[float, float]],
    after: Sequence[tuple[float, float]],
    affinity: frozenset[int] | None,
) -> float | None:
    """Core-seconds in which cores were busy; None where the counters make no sense.

    Args:
        before: `_busy_and_all_seconds` at the start.
        after: the same at the end.
        affinity: numbers of the cores to sum over; None for all.
    """
    if len(before) != len(after):  # a core was switched on or off: the numbers have moved
        return None
    counted = [core for core in range(len(before)) if affinity is None or core in affinity]
    busy = exact_sum(after[core][0] - before[core][0] for core in counted)
    total = exact_sum(after[core][1] - before[core][1] for core in counted)
    slack = _TICK_SECONDS * len(counted)
    # In sandboxes without their own /proc/stat, the counters do not change.
    if total <= 0 or busy < -slack or busy > total + slack:
        return None
    return max(0.0, busy)


def _load_average() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None
