"""How many cores this process may use: affinity and control-group quota."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path, PurePosixPath

from bench.machine.system import read_text


def usable_cores() -> int:
    """Cores this process may run on: its affinity, or its control group's quota if that is less."""
    if sys.platform == "linux":
        cores = len(os.sched_getaffinity(0))
        quota = cgroup_quota_cores()
        # A quota of 1.5 cores lets two threads run, now and then at once.
        return cores if quota is None else max(1, min(cores, math.ceil(quota)))
    return os.cpu_count() or 1


def cgroup_quota_cores(
    membership: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")
) -> float | None:
    """The least CPU quota of this process's control group and those above it, in cores.

    Source: the kernel's cgroup documentation, `cpu.max` of version 2 and `cpu.cfs_quota_us` of
    version 1.
    """
    quotas: list[float | None] = []
    for line in read_text(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = mount / "cpu" if controllers else mount
        own = PurePosixPath(path.lstrip("/"))
        # In a container the path may be the host's; the mount's own top counts in any case.
        quotas += [_quota_of(top / group) for group in (own, *own.parents)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota_of(group: Path) -> float | None:
    quota, _, period = read_text(group / "cpu.max").strip().partition(" ")
    if not quota:
        quota = read_text(group / "cpu.cfs_quota_us").strip()
        period = read_text(group / "cpu.cfs_period_us").strip()
    # "max" (version 2) and -1 (version 1) mean that there is none.
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        return int(quota) / int(period)
    return None
