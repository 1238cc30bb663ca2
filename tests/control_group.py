"""A Linux control group of a test's own."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")


class NoControlGroupError(Exception):
    """This system does not let this user make a control group."""


@contextmanager
def control_group(controller: str) -> Iterator[Path]:
    """The folder of a new group of version 1 or 2, which is removed at the end.

    Args:
        controller: ``"cpu"``, ``"memory"`` or ``"pids"``.

    Raises:
        NoControlGroupError: there is none for this user.
    """
    for root in (MOUNT / controller, MOUNT):
        group = root / f"mnist-bench-test-{uuid.uuid4().hex}"
        with suppress(OSError):
            group.mkdir()
            break
    else:
        raise NoControlGroupError
    try:
        has_controller = any(group.glob(f"{controller}.*"))
        if not has_controller or subprocess.run([*entering(group), "true"], check=False).returncode:
            raise NoControlGroupError
        yield group
    finally:
        group.rmdir()


def entering(group: Path) -> tuple[str, ...]:
    """A command that enters a group and becomes the command that follows it."""
    return ("sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs"))


def limit(group: Path, values: Mapping[str, str]) -> None:
    """Set a limit.

    Args:
        group: folder of the group.
        values: what to write into which file, for version 1 and for version 2.
    """
    file, value = next((group / name, v) for name, v in values.items() if (group / name).exists())
    file.write_text(value)
