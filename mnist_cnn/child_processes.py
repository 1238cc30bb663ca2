"""Child processes that end when this process ends, whatever ends it.

Linux sends a child a signal when its parent dies. Elsewhere a watchdog stands between: this file,
run as a program, ends what it has started when the pipe to its parent closes.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

KILL_SECONDS = 5.0
"""Seconds from SIGTERM to SIGKILL for a child that has to end."""
HAS_DEATH_SIGNAL = sys.platform == "linux"
"""Whether the system can end a child when its parent dies."""
_PR_SET_PDEATHSIG = 1
# Loaded before any fork: between fork and exec, a child must not load a library.
_LIBC = ctypes.CDLL(None) if HAS_DEATH_SIGNAL else None


def end_with_parent(parent: int | None = None) -> None:
    """In a new child, before its program starts: on Linux, let SIGTERM end it with its parent.

    The signal comes when the thread that started the child ends.

    Args:
        parent: process id of the parent; a child whose parent has died already ends at once.
    """
    if _LIBC is None:
        return
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if parent is not None and os.getppid() != parent:
        os._exit(128 + signal.SIGTERM)


def run_child(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    timeout_seconds: float,
    watchdog: bool = not HAS_DEATH_SIGNAL,
    output_to: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, without input; it never outlives this process.

    The program has a process group of its own, and what it starts ends with it.

    Args:
        command: the program and its arguments.
        environment: its variables.
        timeout_seconds: longest time for the whole program.
        watchdog: whether a process in between watches this one; it ends what the program has
            started too, where this process is killed.
        output_to: file descriptor for all that it prints; None to return it.

    Returns:
        Its exit status and what it printed, as text.

    Raises:
        OSError: it could not be started.
        subprocess.TimeoutExpired: it took longer, and was ended.
        KeyboardInterrupt: Ctrl-C, SIGTERM or SIGHUP has come, and the program was ended.
    """
    parent = os.getpid()
    reading, writing = os.pipe()  # only this process holds the writing end
    try:
        with (
            signals_interrupt(),
            subprocess.Popen(
                [sys.executable, "-I", __file__, *command] if watchdog else command,
                env=environment,
                stdin=reading if watchdog else subprocess.DEVNULL,
                stdout=subprocess.PIPE if output_to is None else output_to,
                stderr=subprocess.PIPE if output_to is None else output_to,
                text=True,
                errors="replace",
                process_group=0 if os.name == "posix" else None,
                preexec_fn=lambda: end_with_parent(parent),  # noqa: PLW1509
            ) as child,
        ):
            try:
                output, errors = child.communicate(timeout=timeout_seconds)
            except BaseException:
                _end(child)
                raise
            return subprocess.CompletedProcess(command, child.returncode, output, errors)
    finally:
        os.close(reading)
        os.close(writing)


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt where they would end this process at once.

    What is open is then closed: children, temporary folders, locks. A signal that is ignored
    (nohup), or for which somebody has a handler, is left as it is.
    """

    def interrupt(number: int, _: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt(f"ended by {signal.Signals(number).name}")

    ours: list[int] = []
    if threading.current_thread() is threading.main_thread():  # no other may set handlers
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, interrupt)
                ours.append(number)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _end(child: subprocess.Popen[str]) -> None:
    """End a child and what it has started: ask first, kill after `KILL_SECONDS`."""
    _signal_group(child, signal.SIGTERM)
    try:
        child.wait(KILL_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:  # also after a second Ctrl-C
        _signal_group(child, getattr(signal, "SIGKILL", signal.SIGTERM))


def _signal_group(child: subprocess.Popen[str], number: int) -> None:
    if os.name != "posix":
        child.terminate()
        return
    # The group may have members after the child itself has ended.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def _watch(command: Sequence[str]) -> int:
    """Run a program, and end its process group when stdin closes: the parent has died."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def end_after_parent() -> None:
        # Not through the buffer, whose lock would be missed when the interpreter ends.
        while os.read(0, 1):
            pass
        os.killpg(0, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            child.wait(KILL_SECONDS)
        os.killpg(0, signal.SIGKILL)

    # The group's SIGTERM must end the program, and leave this process to kill it if need be.
    signal.signal(signal.SIGTERM, lambda *_: None)
    threading.Thread(target=end_after_parent, daemon=True).start()
    status = child.wait()
    return 128 - status if status < 0 else status


if __name__ == "__main__":
    sys.exit(_watch(sys.argv[1:]))
