"""A process that outlives the one that works. Small programs stand in for trainings here;
tests/faults provokes the ends of real ones."""

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

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a fork")


def program(folder: Path, work: str) -> list[str]:
    """A program whose guardian prints the end, as far as it is the same each time."""
    path = folder / "program.py"
    path.write_text(
        textwrap.dedent(
            f"""
            import os, signal, sys, time
            sys.path.insert(0, {str(ROOT)!r})
            from bench.launch.guard import run_guarded
            from mnist_cnn.process import end_on_signals, ignore_signals, prepare_streams

            def say(name):
                path = {str(folder)!r} + "/" + name
                with open(path + ".part", "w") as file:
                    file.write(str(os.getpid()))
                os.rename(path + ".part", path)  # whoever finds it may kill this process at once

            def conclude(ending):
                # Reached unless all is well, with nothing to tell.
                assert ending.folder.is_dir()
                print(ending.code, ending.asked or "not asked", flush=True)
                return 7
            """
        )
        + "\ndef work():\n"
        + textwrap.indent(textwrap.dedent(work), "    ")
        + "\nprepare_streams()\nend_on_signals()\n"
        + "try:\n    sys.exit(run_guarded(work, conclude))\n"
        + "except KeyboardInterrupt:\n    sys.exit(130)\n"
        + "finally:\n    ignore_signals()\n"
    )
    return [sys.executable, str(path)]


def run(folder: Path, work: str) -> tuple[int, str]:
    done = subprocess.run(program(folder, work), capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout.strip()


def wait_for(path: Path) -> int:
    """The process that wrote its number into a file."""
    while not path.exists() or not path.read_text():
        time.sleep(0.02)
    return int(path.read_text())


def wait_until_gone(pid: int) -> None:
    with suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.02)


@pytest.mark.slow
def test_it_learns_how_the_work_ended_and_gives_the_status(tmp_path: Path) -> None:
    assert run(tmp_path, "return 0") == (0, "")  # all is well
    assert run(tmp_path, "return 3") == (7, "3 not asked")
    assert run(tmp_path, "os._exit(0)") == (7, "0 not asked")
    assert run(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)") == (7, "-9 not asked")
    assert run(tmp_path, "os.abort()") == (7, "-6 not asked")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_it_reaches_the_work_as_an_exception(
    number: signal.Signals, tmp_path: Path
) -> None:
    work = """
    try:
        say("works")
        while True:
            time.sleep(0.02)
    except KeyboardInterrupt as error:
        sys.exit(5 if str(error).startswith("ended by SIG") else 6)
    """
    with subprocess.Popen(program(tmp_path, work), stdout=subprocess.PIPE, text=True) as process:
        wait_for(tmp_path / "works")
        process.send_signal(number)
        process.send_signal(number)
        output, _ = process.communicate()
    assert output.strip() == f"5 ended by {number.name}"


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="has no such signal")
def test_a_signal_that_asks_for_nothing_is_passed_on(tmp_path: Path) -> None:
    """As of a batch system that tells how much time is left."""
    work = """
    asked = []
    signal.signal(signal.SIGUSR1, lambda *_: asked.append(1))
    say("works")
    while not asked:
        time.sleep(0.02)
    return 3
    """
    with subprocess.Popen(program(tmp_path, work), stdout=subprocess.PIPE, text=True) as process:
        wait_for(tmp_path / "works")
        process.send_signal(signal.SIGUSR1)
        output, _ = process.communicate()
    assert output.strip() == "3 not asked"


@pytest.mark.slow
def test_who_waits_for_a_record_is_told_so(tmp_path: Path) -> None:
    work = """
    from bench.measure.guard_folder import note_begun
    note_begun()
    try:
        say("works")
        while True:
            time.sleep(0.02)
    except KeyboardInterrupt:
        time.sleep(2.0)
    return 3
    """
    with subprocess.Popen(
        program(tmp_path, work), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(tmp_path / "works")
        process.send_signal(signal.SIGTERM)
        output, said = process.communicate()
    # Ended by itself, although it took longer than a process may that has nothing to save.
    assert output.strip() == "3 ended by SIGTERM"
    assert said == "mnist-bench: SIGTERM: the run is being ended and its record saved\n"


def test_rank_variables_that_are_no_numbers_do_not_matter_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work says what is wrong with them, where it needs them: for --help it does not."""
    monkeypatch.setenv("RANK", "first")
    assert run(tmp_path, "return 0") == (0, "")


def test_what_it_was_started_to_ignore_stays_ignored(tmp_path: Path) -> None:
    work = """
    say("works")
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.02)
    return 3
    """
    done = tmp_path / "done"
    with subprocess.Popen(
        [*program(tmp_path, work), str(done)],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),  # noqa: PLW1509
    ) as process:
        child = wait_for(tmp_path / "works")
        for pid in (process.pid, child):
            os.kill(pid, signal.SIGHUP)
        done.touch()
        output, _ = process.communicate()
    assert output.strip() == "3 not asked"


@pytest.mark.slow
@pytest.mark.parametrize(
    "before",
    [
        "",
        pytest.param(  # a run that has begun has 12 seconds to save
            "from bench.measure.guard_folder import note_begun; note_begun()",
            marks=pytest.mark.thorough,
        ),
    ],
    ids=["nothing to save", "begun"],
)
def test_work_that_does_not_listen_is_ended(before: str, tmp_path: Path) -> None:
    work = f"""
    {before}
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say("works")
    while True:
        time.sleep(0.02)
    """
    with subprocess.Popen(program(tmp_path, work), stdout=subprocess.PIPE, text=True) as process:
        wait_for(tmp_path / "works")
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate()
    assert output.strip() == "-9 ended by SIGTERM"


STOPPABLE = """
    say("works")
    while not os.path.exists({done!r}):
        time.sleep(0.02)
    return 0
    """
SHORT_SILENCE = "from bench.launch import guard; guard.SILENCE_SECONDS = {seconds}\n"


def with_silence(words: list[str], seconds: float) -> list[str]:
    """The same program with another limit of how long its work may be stopped."""
    path = Path(words[1])
    text = path.read_text()
    change = SHORT_SILENCE.format(seconds=seconds)
    path.write_text(text.replace("\ndef work", f"\n{change}\ndef work", 1))
    return words


def wait_until_stopped(pid: int) -> None:
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        time.sleep(0.02)


def test_work_that_is_stopped_for_too_long_is_ended(tmp_path: Path) -> None:
    words = with_silence(program(tmp_path, STOPPABLE.format(done=str(tmp_path / "done"))), 2.0)
    path = Path(words[1])
    path.write_text(path.read_text().replace("print(ending.code", "print(ending.was_stopped"))
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        os.kill(wait_for(tmp_path / "works"), signal.SIGSTOP)
        output, _ = process.communicate()
    assert (process.returncode, output) == (7, "True not asked\n")


def test_a_whole_job_may_be_stopped_and_go_on(tmp_path: Path) -> None:
    """Ctrl-Z, and fg after any time."""
    done = tmp_path / "done"
    words = with_silence(program(tmp_path, STOPPABLE.format(done=str(done))), 2.0)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, process_group=0) as process:
        pids = [process.pid, wait_for(tmp_path / "works")]
        for _ in range(3):
            os.killpg(process.pid, signal.SIGSTOP)
            for pid in pids:
                wait_until_stopped(pid)
            time.sleep(1.2)  # three times this is more than the limit
            os.killpg(process.pid, signal.SIGCONT)
            for pid in pids:
                while psutil.Process(pid).status() == psutil.STATUS_STOPPED:
                    time.sleep(0.02)
        done.touch()
        output, _ = process.communicate()
    assert (process.returncode, output) == (0, "")


def test_work_that_goes_on_after_a_stop_is_not_ended(tmp_path: Path) -> None:
    done = tmp_path / "done"
    words = with_silence(program(tmp_path, STOPPABLE.format(done=str(done))), 2.0)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        child = wait_for(tmp_path / "works")
        for _ in range(4):  # together longer than the limit, each time shorter
            os.kill(child, signal.SIGSTOP)
            wait_until_stopped(child)
            time.sleep(0.7)
            os.kill(child, signal.SIGCONT)
            while psutil.Process(child).status() == psutil.STATUS_STOPPED:
                time.sleep(0.02)
        done.touch()
        output, _ = process.communicate()
    assert (process.returncode, output) == (0, "")


def test_while_it_saves_a_signal_is_answered_and_a_second_one_ends_it(tmp_path: Path) -> None:
    saving = """
    def conclude(ending):
        say("saves")
        os.read(os.pipe()[0], 1)  # a disk that does not answer
    """
    words = program(tmp_path, "return 3")
    path = Path(words[1])
    text = path.read_text()
    path.write_text(text.replace("\ndef work", textwrap.dedent(saving) + "\ndef work", 1))
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        wait_for(tmp_path / "saves")
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line == "mnist-bench: SIGINT: the records are being saved; again: give up\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 130


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread looks now and then")
def test_the_work_does_not_outlive_it(tmp_path: Path) -> None:
    work = """
    say("works")
    while True:
        time.sleep(0.02)
    """
    with subprocess.Popen(program(tmp_path, work)) as process:
        child = wait_for(tmp_path / "works")
        process.kill()
    wait_until_gone(child)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives orphans to others")
def test_what_the_work_leaves_behind_is_ended_before_it_ends(tmp_path: Path) -> None:
    work = """
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        say("left")
        while True:
            time.sleep(0.02)
    while not os.path.exists({left!r}):
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGKILL)
    """.format(left=str(tmp_path / "left"))
    assert run(tmp_path, work) == (7, "-9 not asked")
    wait_until_gone(wait_for(tmp_path / "left"))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives orphans to others")
def test_so_is_what_was_left_before_it_began_to_wait(tmp_path: Path) -> None:
    """On a busy machine the work may be over before the guardian gets its turn."""
    left = tmp_path / "left"
    work = """
    worker = os.getpid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while os.getppid() == worker:
            time.sleep(0.02)
        say("left")
        while True:
            time.sleep(0.02)
    os.kill(worker, signal.SIGKILL)
    """
    delay = f"""
    from bench.launch import guard

    class Late(guard._Guardian):
        def __init__(self, *given):
            while not os.path.exists({str(left)!r}):
                time.sleep(0.02)
            super().__init__(*given)

    guard._Guardian = Late
    """
    words = program(tmp_path, work)
    path = Path(words[1])
    text = path.read_text()
    path.write_text(text.replace("\ndef work", textwrap.dedent(delay) + "\ndef work", 1))
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stdout) == (7, "-9 not asked\n")
    wait_until_gone(wait_for(left))


def test_closed_streams_are_no_failure(tmp_path: Path) -> None:
    words = program(tmp_path, "print('to nobody'); print('either', file=sys.stderr); return 3")
    script = '"$@" <&- >&- 2>&-; echo $?'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *words], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "7"
