"""What killed processes left is removed; what a living one uses, or somebody else made, is not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mnist_cnn import disk, user_folders
from mnist_cnn.leftovers import remove_files_of, sweep_files

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="has no SIGKILL")


def test_only_what_a_dead_writer_left_is_swept(tmp_path: Path) -> None:
    zeros = "0" * 16
    kept = [
        tmp_path / name
        for name in ("notes.tmp", ".notes.tmp", f"a.{zeros}.tmp", f".a.{zeros[1:]}.tmp")
    ]
    left, new = tmp_path / f".left.{zeros}.tmp", tmp_path / f".new.{zeros}.tmp"
    link, folder = tmp_path / f".link.{zeros}.tmp", tmp_path / f".folder.{zeros}.tmp"
    folder.mkdir()
    link.symlink_to(kept[0])

    def sweep(busy: Path) -> None:
        for path in (*kept, left, busy, folder):
            if not path.exists():
                path.touch()
            os.utime(path, (time.time() - 3600,) * 2)
        new.touch()
        sweep_files(tmp_path)
        assert set(tmp_path.iterdir()) == {*kept, busy, new, link, folder}

    disk.write_beside(tmp_path / "busy", b"x", sweep)


KEEPS_FOLDER = """
import sys
from mnist_cnn.user_folders import temporary_folder
with temporary_folder() as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


def started(root: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that keeps a temporary folder until its stdin is closed, and the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", KEEPS_FOLDER],
        cwd=ROOT,
        env=dict(os.environ) | {"TMPDIR": str(root)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_folders_of_killed_processes_are_swept_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    others = [tmp_path / "mnist-bench-precious", tmp_path / "mnist-bench-0a1b2c3_"]
    for folder in others:
        folder.mkdir()
    (alive, folder_in_use), (killed, left) = started(tmp_path), started(tmp_path)
    with alive, killed:
        killed.kill()
        killed.wait()
        for folder in (folder_in_use, left, *others):
            os.utime(folder, (1, 1))
        with user_folders.temporary_folder() as new:
            assert set(tmp_path.iterdir()) == {*others, folder_in_use, new}
        alive.communicate("")
        assert alive.returncode == 0
    assert set(tmp_path.iterdir()) == set(others)


def test_files_of_a_dead_process_are_removed_at_once_and_no_others(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from mnist_cnn.disk import write_beside\n"
        "write_beside(Path(sys.argv[1]), b'half', lambda _: os._exit(0))"
    )
    machine = tmp_path / "machine"
    machine.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", script, machine / "record.json"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        process.wait()
    (machine / "record.json").write_text("whole")

    def remove(other: Path) -> None:
        assert len(list(machine.iterdir())) == 3
        remove_files_of(process.pid, tmp_path)
        assert {path.name for path in machine.iterdir()} == {"record.json", other.name}

    disk.write_beside(machine / "other.json", b"half", remove)
    remove_files_of(process.pid, tmp_path / "absent")
