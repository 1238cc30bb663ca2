"""Ranks that are started together and end together. Small programs stand in for trainings here;
tests/cli/test_run.py starts real ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from bench.launch import supervisor
from bench.launch.supervisor import run_each, supervise

ROOT = Path(__file__).resolve().parents[2]


def program(folder: Path, text: str) -> list[str]:
    """A program that finds its number as `rank`, and this project's modules."""
    path = folder / "program.py"
    head = "import os, signal, sys, time\nrank = int(os.environ['RANK'])\n"
    head += f"sys.path.insert(0, {str(ROOT)!r})\n"
    path.write_text(head + textwrap.dedent(text))
    return [sys.executable, str(path)]


def test_each_rank_knows_who_it_is_and_where_to_meet(tmp_path: Path) -> None:
    command = program(
        tmp_path,
        f"""
        names = "WORLD_SIZE LOCAL_WORLD_SIZE RANK LOCAL_RANK MASTER_ADDR MASTER_PORT"
        values = " ".join(os.environ[name] for name in names.split())
        from bench.measure.rank_ends import RANKS_NAME, guard_folder
        values += f" {{(guard_folder() / RANKS_NAME).exists()}}"
        open({str(tmp_path)!r} + f"/{{rank}}.txt", "w").write(values)
        """,
    )
    assert supervise(command, 3, threads=2) == 0
    told = [(tmp_path / f"{rank}.txt").read_text().split() for rank in range(3)]
    assert [words[:4] for words in told] == [["3", "3", str(r), str(r)] for r in range(3)]
    assert len({tuple(words[4:]) for words in told}) == 1
    assert told[0][4] == "127.0.0.1"
    assert 1024 <= int(told[0][5]) < 65536  # those below are the system's
    assert told[0][6] == "True"  # by which a guardian knows that its child is no rank


@pytest.mark.slow
def test_the_status_is_rank_0s_or_the_first_bad_one(tmp_path: Path) -> None:
    assert supervise(program(tmp_path, "sys.exit([130, 0][rank])"), 2, threads=1) == 130
    assert supervise(program(tmp_path, "sys.exit([0, 0, 2][rank])"), 3, threads=1) == 2
    assert supervise(program(tmp_path, "sys.exit([1, 3][rank])"), 2, threads=1) == 1


def test_survivors_read_who_died_and_may_finish(tmp_path: Path) -> None:
    command = program(
        tmp_path,
        f"""
        from bench.measure.rank_ends import first_end
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        open({str(tmp_path / "said")!r}, "w").write(str(first_end(60)))
        sys.exit(1)
        """,
    )
    assert supervise(command, 2, threads=1) == 1
    assert (tmp_path / "said").read_text() == "rank 1 was ended by SIGKILL"


@pytest.mark.slow
def test_one_that_was_killed_is_a_failure_although_the_others_were_asked_to_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = program(
        tmp_path,
        """
        from bench.measure.rank_ends import first_end
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        first_end(60)
        sys.exit(130)
        """,
    )
    assert supervise(command, 2, threads=1) == 1
    assert capsys.readouterr().err == "mnist-bench: rank 1 was ended by SIGKILL\n"


@pytest.mark.slow
def test_one_that_has_said_what_failed_is_not_told_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = program(
        tmp_path,
        """
        from bench.measure.rank_ends import EndKind, report_end
        if rank == 1:
            report_end(1, EndKind.CAUSE, "failed: a word of its own")
        sys.exit(rank)
        """,
    )
    assert supervise(command, 2, threads=1) == 1
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_one_that_is_asked_to_end_has_time_to_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "GRACE_SECONDS", 0.3)
    monkeypatch.setattr(supervisor, "SHORT_GRACE_SECONDS", 0.3)
    command = program(
        tmp_path,
        f"""
        ready, saved = {str(tmp_path / "ready")!r}, {str(tmp_path / "saved")!r}
        def save(*_):
            time.sleep(1)
            open(saved, "w").close()
            sys.exit(1)
        if rank == 1:
            while not os.path.exists(ready):
                time.sleep(0.02)
            sys.exit(7)
        signal.signal(signal.SIGTERM, save)
        open(ready, "w").close()
        while True:
            time.sleep(60)
        """,
    )
    assert supervise(command, 2, threads=1) == 1
    assert (tmp_path / "saved").exists()


@pytest.mark.slow
def test_one_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it takes being asked."""
    monkeypatch.setattr(supervisor, "GRACE_SECONDS", 0.3)
    monkeypatch.setattr(supervisor, "KILL_SECONDS", 0.3)
    command = program(
        tmp_path,
        f"""
        deaf = {str(tmp_path / "deaf")!r}
        if rank == 1:
            while not os.path.exists(deaf):
                time.sleep(0.02)
            sys.exit(7)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open(deaf, "w").close()
        while True:
            time.sleep(60)
        """,
    )
    assert supervise(command, 2, threads=1) == 1


@pytest.mark.slow
def test_one_that_is_stopped_for_a_while_goes_on(tmp_path: Path) -> None:
    """As all are by Ctrl-Z and `fg`."""
    command = program(
        tmp_path,
        f"""
        import psutil
        from bench.measure.rank_ends import announce_rank
        announce_rank()
        number = {str(tmp_path / "number")!r}
        if rank == 1:
            open(number + "-", "w").write(str(os.getpid()))
            os.rename(number + "-", number)
            os.kill(os.getpid(), signal.SIGSTOP)
            sys.exit(0)
        while not os.path.exists(number):
            time.sleep(0.02)
        other = psutil.Process(int(open(number).read()))
        while other.status() != psutil.STATUS_STOPPED:
            time.sleep(0.02)
        time.sleep(1)  # the supervisor looks many times
        other.resume()
        """,
    )
    assert supervise(command, 2, threads=1) == 0


@pytest.mark.parametrize("stopped", [0, 1])
def test_one_that_is_stopped_is_ended_although_the_other_has_finished(
    stopped: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(supervisor, "SILENCE_SECONDS", 2.0)
    command = program(
        tmp_path, f"if rank == {stopped}:\n    os.kill(os.getpid(), signal.SIGSTOP)\nsys.exit(0)"
    )
    assert supervise(command, 2, threads=1) == 1
    line = "mnist-bench: rank 1 was stopped (SIGSTOP) and did not answer\n"
    assert capsys.readouterr().err == (
        "" if stopped == 0 else line
    )  # of rank 0 the guardian says it


def test_one_that_hangs_after_rank_0_has_finished_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(supervisor, "SILENCE_SECONDS", 2.0)
    command = program(tmp_path, "if rank == 1:\n    time.sleep(3600)\nsys.exit(0)")
    assert supervise(command, 2, threads=1) == 1
    assert capsys.readouterr().err == "mnist-bench: rank 1 did not end after rank 0 had\n"


def test_one_of_independent_processes_that_is_stopped_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(supervisor, "SILENCE_SECONDS", 2.0)
    command = program(tmp_path, "if rank == 1:\n    os.kill(os.getpid(), signal.SIGSTOP)\n")
    environments = [os.environ | {"RANK": str(rank)} for rank in range(2)]
    assert run_each(command, environments) == ([0, -signal.SIGKILL], False)
    said = capsys.readouterr().err
    assert said.endswith(" was stopped (SIGSTOP) and did not answer\n")


LEAVES = {
    "at once": ("if rank == 0:\n    os._exit(3)\nsys.exit(0)", "rank 0 ended with status 3"),
    "with success": (
        "if rank == 0:\n    os._exit(0)\ntime.sleep(0.5)\nsys.exit(1)",
        "rank 0 ended with status 0, and rank 1 ended with status 1",
    ),
    "so that the other is asked to end": (
        "ENDS_WHEN_ASKED\nif rank == 1:\n    os._exit(3)",
        "rank 1 ended with status 3",
    ),
    "with success, so that the other fails": (
        "if rank == 1:\n    os._exit(0)\ntime.sleep(0.5)\nos._exit(7)",
        "rank 1 ended with status 0, and rank 0 ended with status 7",
    ),
}
ENDS_WHEN_ASKED = """
from bench.measure.rank_ends import EndKind, report_end
def leave(*_):
    report_end(rank, EndKind.INTERRUPTED, "was ended by SIGTERM")
    sys.exit(130)
if rank == 0:
    signal.signal(signal.SIGTERM, leave)
    open(FOLDER + "/ready", "w").close()
    while True:
        time.sleep(60)
while not os.path.exists(FOLDER + "/ready"):
    time.sleep(0.02)
"""


def _when_asked(tmp_path: Path, text: str) -> str:
    ready = f"FOLDER = {str(tmp_path)!r}\n{ENDS_WHEN_ASKED}"
    return text.replace("ENDS_WHEN_ASKED", ready)


@pytest.mark.parametrize("how", LEAVES)
def test_one_that_leaves_without_a_word_before_the_first_run_is_named(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, said = LEAVES[how]
    assert supervise(program(tmp_path, _when_asked(tmp_path, text)), 2, threads=1) == 1
    assert capsys.readouterr().err == f"mnist-bench: error: {said} before the first run\n"


def test_one_that_was_asked_to_end_is_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "ENDS_WHEN_ASKED\nleave()"
    assert supervise(program(tmp_path, _when_asked(tmp_path, text)), 2, threads=1) == 130
    assert capsys.readouterr().err == ""


SUPERVISOR = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from bench.launch.supervisor import supervise
sys.exit(supervise(sys.argv[1:], 2, threads=1))
"""


def started(tmp_path: Path, before: str = "") -> tuple[subprocess.Popen[bytes], list[int]]:
    """A supervisor of its own process, and its ranks once they wait, which they do for ever."""
    command = program(
        tmp_path,
        f"{before}\n"
        f"open({str(tmp_path)!r} + f'/pid{{rank}}', 'w').write(str(os.getpid()))\n"
        "while True:\n"
        "    time.sleep(60)\n",
    )
    process = subprocess.Popen([sys.executable, "-c", SUPERVISOR, *command])
    files = [tmp_path / "pid0", tmp_path / "pid1"]
    while not all(file.exists() and file.read_text() for file in files):
        assert process.poll() is None
        time.sleep(0.02)
    return process, [int(file.read_text()) for file in files]


def wait_until_gone(pids: list[int]) -> None:
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.05)


def test_sigterm_reaches_every_rank_and_their_word_counts(tmp_path: Path) -> None:
    process, pids = started(tmp_path, "signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))")
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 130
    wait_until_gone(pids)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_ranks_do_not_outlive_their_supervisor(tmp_path: Path) -> None:
    process, pids = started(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until_gone(pids)


def test_independent_processes_end_by_themselves(tmp_path: Path) -> None:
    command = program(
        tmp_path,
        f"""
        if rank == 0:
            sys.exit(3)
        time.sleep(0.5)
        open({str(tmp_path / "whole")!r}, "w").close()
        """,
    )
    environments = [os.environ | {"RANK": str(rank)} for rank in range(2)]
    assert run_each(command, environments) == ([3, 0], False)
    assert (tmp_path / "whole").exists()


EACH = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from bench.launch.supervisor import run_each
ended = run_each(sys.argv[1:], [os.environ | {{"RANK": str(rank)}} for rank in range(2)])
print(ended.codes, ended.interrupted)
"""


def test_a_signal_reaches_each_of_them_and_all_may_finish(tmp_path: Path) -> None:
    command = program(
        tmp_path,
        f"""
        def end(*_):
            time.sleep(0.3 * rank)
            sys.exit(5 + rank)
        signal.signal(signal.SIGTERM, end)
        open({str(tmp_path)!r} + f"/waits{{rank}}", "w").close()
        while True:
            time.sleep(60)
        """,
    )
    with subprocess.Popen(
        [sys.executable, "-c", EACH, *command], stdout=subprocess.PIPE, text=True
    ) as process:
        while not all((tmp_path / f"waits{rank}").exists() for rank in range(2)):
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate()
    assert output.strip() == "[5, 6] True"
