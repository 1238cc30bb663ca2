"""How many cores this process may use: CPU affinity and control-group quota."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from bench.machine.cgroups import MEMBERSHIP, MOUNT, own_groups
from bench.machine.system import read_text, whole_number


def usable_cores() -> int:
    """Number of cores this process may use: its affinity, or its control group's lower quota."""
    affinity = affinity_cores()
    if affinity is not None:
        cores = len(affinity)
        quota_cores = cgroup_quota_cores()
        # A quota of 1.5 cores allows two threads to run at the same time for a while.
        return cores if quota_cores is None else max(1, min(cores, math.ceil(quota_cores)))
    return os.cpu_count() or 1


def affinity_cores() -> frozenset[int] | None:
    """Numbers of the cores that this process may run on; None where the system has no affinity."""
    return frozenset(os.sched_getaffinity(0)) if sys.platform == "linux" else None


def cgroup_quota_cores(membership: Path = MEMBERSHIP, mount: Path = MOUNT) -> float | None:
    """The lowest CPU quota of this process's control group and its parents; None if unlimited.

    Source: the kernel's cgroup documentation, `cpu.max` of version 2 and `cpu.cfs_quota_us` of
    version 1.

    Args:
        membership: the file that lists the control groups of this process.
        mount: the folder where control groups are mounted.
    """
    quotas = map(_quota_cores, own_groups("cpu", membership, mount))
    return min((quota for quota in quotas if quota is not None), default=None)


def cgroup_throttled_seconds(
    membership: Path = MEMBERSHIP, mount: Path = MOUNT
) -> dict[str, float]:
    """Seconds in which a quota stopped threads of this process's control group and its parents.

    Source: the kernel's cgroup documentation, `cpu.stat`: `throttled_usec` of version 2 and
    `throttled_time`, in nanoseconds, of version 1.

    Args:
        membership: the file that lists the control groups of this process.
        mount: the folder where control groups are mounted.

    Returns:
        The seconds since each group was made, by the group's folder; groups that count.
    """
    seconds = {
        str(group): _throttled_seconds(group) for group in own_groups("cpu", membership, mount)
    }
    return {group: value for group, value in seconds.items() if value is not None}


def longest_throttled_seconds(
    before: Mapping[str, float], after: Mapping[str, float]
) -> float | None:
    """The largest increase of any control group; None where no group counted at both times.

    Args:
        before: an earlier result of `cgroup_throttled_seconds`.
        after: a later result.
    """
    increases = [after[group] - before[group] for group in before if group in after]
    # A group that was deleted and made again counts from zero.
    return max((increase for increase in increases if increase >= 0), default=None)


def _quota_cores(group: Path) -> float | None:
    quota, _, period = read_text(group / "cpu.max").strip().partition(" ")
    if not quota:
        quota = read_text(group / "cpu.cfs_quota_us").strip()
        period = read_text(group / "cpu.cfs_period_us").strip()
    # "max" (version 2) and -1 (version 1) mean that there is no quota.
    quota_us, period_us = whole_number(quota), whole_number(period)
    return quota_us / period_us if quota_us and period_us else None


def _throttled_seconds(group: Path) -> float | None:
    units = {"throttled_usec": 1e-6, "throttled_time": 1e-9}
    for line in read_text(group / "cpu.stat").splitlines():
        name, _, value = line.partition(" ")
        if name in units and (count := whole_number(value.strip())) is not None:
            return count * units[name]
    return None
