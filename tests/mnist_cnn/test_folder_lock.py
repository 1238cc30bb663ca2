"""A lock that another process holds: who waits says for whom. The processes are real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from mnist_cnn.errors import UsageError
from mnist_cnn.folder_lock import Holder, locked

ROOT = Path(__file__).resolve().parents[2]
PURPOSE = "downloads MNIST"
HOLD = """
import sys
from pathlib import Path
from mnist_cnn.folder_lock import locked
with locked(Path(sys.argv[1]), print, purpose='downloads MNIST'):
    print("held", flush=True)
    sys.stdin.readline()
"""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX's signals")


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock until it reads a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_who_waits_says_for_whom_and_goes_on_when_it_ends(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    lines: list[str] = []

    def notify(line: str) -> None:
        lines.append(line)
        holder.kill()

    with locked(tmp_path, notify, purpose=PURPOSE):
        assert Holder.read(tmp_path / ".lock.holder") == Holder.this_process()
    assert lines == [
        f"waiting for another process that downloads MNIST: process {holder.pid}; at most 30 "
        "minutes; end it to go on at once"
    ]
    assert not (tmp_path / ".lock.holder").exists()


def test_a_stopped_holder_is_not_waited_for(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    lines: list[str] = []
    holder.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, holder.pid, os.WSTOPPED)
    with (
        pytest.raises(UsageError) as caught,
        locked(tmp_path, lines.append, purpose=PURPOSE, stopped_seconds=0.2),
    ):
        pass
    assert f"process {holder.pid}; it is stopped" in lines[0]
    assert str(caught.value) == (
        f"process {holder.pid} holds {tmp_path / '.lock'} and is stopped; let it go on with "
        f"`kill -CONT {holder.pid}`, or end it with `kill -9 {holder.pid}`"
    )
    holder.send_signal(signal.SIGCONT)


def test_the_wait_has_an_end(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with (
        pytest.raises(UsageError, match=rf"process {holder.pid} has held .*end it and try again"),
        locked(tmp_path, lambda _: None, purpose=PURPOSE, longest_seconds=0.2),
    ):
        pass


def test_nobody_waits_for_the_dead(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    """What a killed process leaves: the lock's file, and the file with its name."""
    holder.kill()
    holder.wait()
    assert (tmp_path / ".lock.holder").exists()
    lines: list[str] = []
    with locked(tmp_path, lines.append, purpose=PURPOSE):
        pass
    assert lines == []


INHERIT = """
import fcntl, os, sys
from pathlib import Path
from mnist_cnn.folder_lock import locked
folder = Path(sys.argv[1])
with locked(folder, print, purpose='downloads MNIST'):
    if os.fork() == 0:
        fcntl.flock(os.open(folder / ".lock", os.O_RDWR), fcntl.LOCK_EX)
        print("held", flush=True)
        sys.stdin.readline()
        os._exit(0)
    os._exit(0)
"""


def test_who_holds_the_lock_is_not_mistaken_for_the_dead_that_held_it_before(
    tmp_path: Path,
) -> None:
    lines: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-c", INHERIT, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdin
        assert process.stdout.readline() == "held\n"
        assert process.wait() == 0
        stdin = process.stdin

        def notify(line: str) -> None:
            lines.append(line)
            stdin.write("\n")
            stdin.flush()

        with locked(tmp_path, notify, purpose=PURPOSE):
            pass
    assert f"another process than {process.pid}, which held it before and is gone" in lines[0]


def test_the_states_of_a_holder() -> None:
    this = Holder.this_process()
    assert this.state() == "alive"
    assert replace(this, host="another").state() == "on another machine"
    assert replace(this, started=this.started - 3600).state() == "gone"  # its number, used again
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        process = psutil.Process(child.pid)
        other = Holder(pid=child.pid, host=this.host, started=process.create_time())
        assert other.state() == "alive"
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        assert other.state() == "stopped"
        child.kill()
        child.send_signal(signal.SIGCONT)
    assert other.state() == "gone"


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "{}", '{"pid": "x", "host": 1, "started": 0}', "[" * 4000, "\0" * 9999),
        '{"pid": 1e999, "host": "a", "started": 0}',
        f'{{"pid": 1, "host": "a", "started": {"9" * 400}}}',
    ],
)
def test_a_strange_file_names_nobody(content: str, tmp_path: Path) -> None:
    path = tmp_path / ".lock.holder"
    path.write_text(content)
    assert Holder.read(path) is None


LOADS = """
import sys
from pathlib import Path
from mnist_cnn.data import dataset
dataset.load(Path(sys.argv[1]))
"""


@pytest.mark.parametrize(
    "words", [["-c", LOADS], ["-m", "bench", "data", "--data-dir"]], ids=["log", "command"]
)
def test_a_terminal_obeys_nothing_of_the_holders_file(
    words: list[str], tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    stranger = Holder(pid=holder.pid, host="x\x1b]0;owned\x07\x1b[31m\u202ey", started=0.0)
    (tmp_path / ".lock.holder").write_text(json.dumps(asdict(stranger)))
    with subprocess.Popen(
        [sys.executable, *words, str(tmp_path)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    ) as waiting:
        assert waiting.stderr is not None
        line = waiting.stderr.readline().decode()
        waiting.kill()
    assert "waiting for another process that downloads MNIST" in line
    assert " on xy" in line
    assert line.removesuffix("\n").isprintable()
    lines: list[str] = []
    with (
        pytest.raises(UsageError),
        locked(tmp_path, lines.append, purpose=PURPOSE, longest_seconds=0.0),
    ):
        pass
    assert [line.isprintable() for line in lines] == [True]


@pytest.mark.parametrize("pid", [-1, 0, 2**70])
def test_a_strange_number_is_nobody(pid: int, tmp_path: Path) -> None:
    path = tmp_path / ".lock.holder"
    path.write_text(json.dumps(asdict(replace(Holder.this_process(), pid=pid))))
    holder = Holder.read(path)
    assert holder is None or holder.state() == "gone"
