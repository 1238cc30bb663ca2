"""The user's own folders, where there is no home, and where no temporary file can be made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_cnn import disk, user_folders
from mnist_cnn.data.files import data_folder
from mnist_cnn.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]


def test_without_a_home_the_line_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "MNIST_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "")
    assert disk.home_folder() is None
    with pytest.raises(UsageError, match="set HOME or XDG_STATE_HOME"):
        user_folders.state_folder()
    with pytest.raises(UsageError, match=r"set HOME or XDG_CACHE_HOME.*--data-dir"):
        data_folder()
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert data_folder() == Path("/cache/mnist-bench/mnist")


def test_a_home_is_a_whole_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert disk.home_folder() == tmp_path
    monkeypatch.setenv("HOME", "here")
    assert disk.home_folder() is None


@pytest.mark.skipif(not hasattr(os, "setuid") or os.getuid() != 0, reason="needs another user")
def test_a_user_whom_nobody_knows_has_no_home() -> None:
    script = """
import os
from mnist_cnn.disk import home_folder
os.setuid(54321)
del os.environ["HOME"]
print(home_folder())
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=dict(os.environ) | {"HOME": "/"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "None\n"


UNUSABLE = """
from mnist_cnn.errors import UsageError
from mnist_cnn.user_folders import temporary_folder
try:
    with temporary_folder():
        print("made")
except UsageError as error:
    print(error)
"""


def test_without_any_temporary_folder_tmpdir_is_named(tmp_path: Path) -> None:
    # Read-only as they are, not empty: this checkout may be in one of them.
    script = (
        "for folder in /tmp /var/tmp; do mount --rbind $folder $folder && "
        "mount -o remount,bind,ro $folder || exit 77; done; "
        f"cd /proc; exec {sys.executable} -c '{UNUSABLE}'"
    )
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script],
        cwd=ROOT,
        env=dict(os.environ) | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("mounting is not allowed here")
    assert "no folder for temporary files can be written to: set TMPDIR to one" in done.stdout
