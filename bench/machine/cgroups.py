"""The control groups of this process, as Linux lists them.

Source: the kernel's documentation of control groups, versions 1 and 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from bench.machine.system import PROC, read_text, whole_number

MEMBERSHIP = PROC / "self" / "cgroup"
"""The file that lists the control groups of this process."""
MOUNT = Path("/sys/fs/cgroup")
"""The folder where control groups are mounted."""
_LONGEST_PATH = 4096
"""Letters of the longest path of Linux; of a longer one the ancestors would fill the memory."""
_SYSTEM_COUNTERS = PROC / "vmstat"


def own_groups(
    controller: str, membership: Path = MEMBERSHIP, mount: Path = MOUNT
) -> Iterator[Path]:
    """Folders of the control groups by which a controller may limit this process, innermost first.

    Args:
        controller: ``"cpu"``, ``"memory"``, ...
        membership: the file that lists the control groups of this process.
        mount: the folder where control groups are mounted.
    """
    for line in read_text(membership).splitlines():
        parts = line.split(":", 2)
        if len(parts) < 3:  # no line of the kernel's
            continue
        _, controllers, path = parts
        if controllers and controller not in controllers.split(","):
            continue
        root = mount / controller if controllers else mount
        group = PurePosixPath(path.lstrip("/") if len(path) <= _LONGEST_PATH else "")
        # In a container, the path may be the host's. The mount's own root always applies.
        yield from (root / ancestor for ancestor in (group, *group.parents))


def memory_kills(
    membership: Path = MEMBERSHIP, mount: Path = MOUNT, system: Path = _SYSTEM_COUNTERS
) -> int:
    """How many processes the system has ended so far because memory ran out; 0 if not known.

    Those of this process's control group, by whatever limit: `memory.events` of version 2,
    `memory.oom_control` of version 1. Those of the whole machine where no group counts.

    Args:
        membership: the file that lists the control groups of this process.
        mount: the folder where control groups are mounted.
        system: the file that counts for the whole machine.
    """
    groups = own_groups("memory", membership, mount)
    files = (group / name for group in groups for name in ("memory.events", "memory.oom_control"))
    for file in (*files, system):
        for line in read_text(file).splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill" and (kills := whole_number(count)) is not None:
                return kills
    return 0
