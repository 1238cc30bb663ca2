"""How many cores this process may use: CPU affinity and control-group quota."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path, PurePosixPath

from bench.machine.system import PROC, read_text


def usable_cores() -> int:
    """Number of cores this process may use: its affinity, or its control group's lower quota."""
    if sys.platform == "linux":
        cores = len(os.sched_getaffinity(0))
        quota_cores = cgroup_quota_cores()
        # A quota of 1.5 cores allows two threads to run at the same time for a while.
        return cores if quota_cores is None else max(1, min(cores, math.ceil(quota_cores)))
    return os.cpu_count() or 1


def cgroup_quota_cores(
    membership: Path = PROC / "self" / "cgroup", mount: Path = Path("/sys/fs/cgroup")
) -> float | None:
    """The lowest CPU quota of this process's control group and its parents; None if unlimited.

    Source: the kernel's cgroup documentation, `cpu.max` of version 2 and `cpu.cfs_quota_us` of
    version 1.

    Args:
        membership: the file that lists the control groups of this process.
        mount: the folder where control groups are mounted.
    """
    quotas: list[float | None] = []
    for line in read_text(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = mount / "cpu" if controllers else mount
        group = PurePosixPath(path.lstrip("/"))
        # In a container, the path may be the host's. The mount's own root always applies.
        quotas += [_quota_cores(root / ancestor) for ancestor in (group, *group.parents)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota_cores(group: Path) -> float | None:
    quota, _, period = read_text(group / "cpu.max").strip().partition(" ")
    if not quota:
        quota = read_text(group / "cpu.cfs_quota_us").strip()
        period = read_text(group / "cpu.cfs_period_us").strip()
    # "max" (version 2) and -1 (version 1) mean that there is no quota.
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        return int(quota) / int(period)
    return None
