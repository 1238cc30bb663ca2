"""What Linux counts for a control group; the files are as the kernel documents them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.machine.cgroups import memory_kills, own_groups

SYSTEM = "pgfault 12\noom_kill 9\n"


def folder(root: Path, membership: str, files: dict[str, str]) -> tuple[Path, Path, Path]:
    """The membership, the mount and the system's counters."""
    for name, text in {"own": membership, "vmstat": SYSTEM, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "own", root / "mount", root / "vmstat"


@pytest.mark.parametrize(
    ("membership", "files", "kills"),
    [
        # Version 2: its own group, whatever happens elsewhere.
        (
            "0::/a/b\n",
            {
                "mount/a/b/memory.events": "oom 3\noom_kill 2\noom_group_kill 0\n",
                "mount/a/memory.events": "oom_kill 5\n",
            },
            2,
        ),
        # In a container the path may be the host's: what is mounted is its own.
        ("0::/host/c\n", {"mount/memory.events": "oom_kill 1\n"}, 1),
        # Version 1.
        (
            "4:memory:/a\n1:cpu:/\n0::/\n",
            {"mount/memory/a/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"},
            4,
        ),
        # The outermost group of version 2 counts nothing: the machine does.
        ("0::/\n", {}, 9),
        ("", {}, 9),
        ("", {"vmstat": "pgfault 12\n"}, 0),
    ],
)
def test_the_processes_that_memory_ended_are_those_of_the_own_group(
    membership: str, files: dict[str, str], kills: int, tmp_path: Path
) -> None:
    assert memory_kills(*folder(tmp_path, membership, files)) == kills


def test_groups_are_listed_from_the_innermost_on(tmp_path: Path) -> None:
    own, mount, _ = folder(tmp_path, "3:cpu,cpuacct:/x\n0::/a/b\n", {})
    assert list(own_groups("cpu", own, mount)) == [
        *(mount / "cpu" / "x", mount / "cpu"),
        *(mount / "a" / "b", mount / "a", mount),
    ]


def test_a_path_that_no_system_has_is_not_followed(tmp_path: Path) -> None:
    """Found by fuzzing: 25,000 ancestors of a path took the memory that there was."""
    own, mount, _ = folder(tmp_path, f"0::/{'u/' * 25_000}\n", {})
    assert list(own_groups("cpu", own, mount)) == [mount]
