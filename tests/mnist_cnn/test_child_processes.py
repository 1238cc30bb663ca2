"""Children end with their parent. The processes and signals are real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from mnist_cnn.child_processes import HAS_DEATH_SIGNAL, run_child
from tests.shared import wait_until_ended

ROOT = Path(__file__).resolve().parents[2]
WATCHDOGS = [
    pytest.param(False, marks=pytest.mark.skipif(not HAS_DEATH_SIGNAL, reason="Linux's signal")),
    True,
]
CHILD = """
import os, subprocess, sys, time
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
fifo = os.open(sys.argv[1], os.O_WRONLY)
os.write(fifo, f"{os.getpid()} {grandchild.pid}".encode())
os.close(fifo)
time.sleep(600)
"""
PARENT = """
import os, sys
from mnist_cnn.child_processes import run_child
try:
    command = [sys.executable, "-c", sys.argv[1], sys.argv[2]]
    run_child(command, environment=os.environ, timeout_seconds=500, watchdog=sys.argv[3] == "True")
except KeyboardInterrupt as error:
    print("interrupted:", error)
"""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX's signals")


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """What a child opens when it runs: whoever reads it waits for that."""
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


@pytest.fixture
def parents() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for parent in started:
        parent.kill()
        parent.wait()
        assert parent.stdout
        parent.stdout.close()


def start(
    parents: list[subprocess.Popen[str]], fifo: Path, watchdog: bool, *prefix: str
) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A parent, and what it has started, once that runs."""
    command = [*prefix, sys.executable, "-c", PARENT, CHILD, str(fifo), str(watchdog)]
    parent = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    parents.append(parent)
    pids = [int(word) for word in fifo.read_text().split()]
    return parent, [psutil.Process(pid) for pid in pids]


@pytest.mark.parametrize("watchdog", WATCHDOGS)
def test_a_child_does_not_outlive_a_parent_that_is_killed(
    watchdog: bool, fifo: Path, parents: list[subprocess.Popen[str]]
) -> None:
    parent, (child, grandchild) = start(parents, fifo, watchdog)
    parent.kill()
    wait_until_ended([child, grandchild] if watchdog else [child])
    grandchild.kill()


@pytest.mark.parametrize("watchdog", WATCHDOGS)
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_to_the_parent_ends_all_in_order(
    watchdog: bool, name: str, fifo: Path, parents: list[subprocess.Popen[str]]
) -> None:
    parent, (child, grandchild) = start(parents, fifo, watchdog)
    parent.send_signal(getattr(signal, name))
    assert parent.communicate()[0].startswith("interrupted:")
    wait_until_ended([child, grandchild])


def test_an_inherited_ignore_stays_ignored(
    fifo: Path, parents: list[subprocess.Popen[str]]
) -> None:
    parent, (child, _) = start(parents, fifo, False, "nohup")
    parent.send_signal(signal.SIGHUP)
    assert child.is_running()
    parent.terminate()
    assert "ended by SIGTERM" in parent.communicate()[0]
    wait_until_ended([child])


@pytest.mark.slow
@pytest.mark.parametrize("watchdog", WATCHDOGS)
def test_the_end_of_the_time_ends_all(watchdog: bool, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = CHILD.replace("os.O_WRONLY", "os.O_WRONLY | os.O_CREAT")
    with pytest.raises(subprocess.TimeoutExpired):
        run_child(
            [sys.executable, "-c", script, str(pids)],
            environment=os.environ,
            timeout_seconds=1.5,
            watchdog=watchdog,
        )
    if pids.exists():  # a busy machine may not have come so far
        # They are killed; a moment may pass until the system has ended them.
        for pid in pids.read_text().split():
            with suppress(psutil.NoSuchProcess):
                wait_until_ended([psutil.Process(int(pid))])


@pytest.mark.parametrize("watchdog", WATCHDOGS)
def test_status_and_output_are_the_childs(watchdog: bool) -> None:
    script = "import sys; print('out', end=''); print('err', end='', file=sys.stderr); sys.exit(7)"
    finished = run_child(
        [sys.executable, "-c", script],
        environment=os.environ,
        timeout_seconds=60,
        watchdog=watchdog,
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (7, "out", "err")


def test_a_child_sees_no_input() -> None:
    script = "import sys; print(repr(sys.stdin.read()))"
    for watchdog in (False, True):
        finished = run_child(
            [sys.executable, "-c", script],
            environment=os.environ,
            timeout_seconds=60,
            watchdog=watchdog,
        )
        assert finished.stdout == "''\n"


def test_handlers_are_as_before() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    run_child([sys.executable, "-c", ""], environment=os.environ, timeout_seconds=60)
    assert {number: signal.getsignal(number) for number in before} == before
