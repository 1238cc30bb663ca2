"""The guardian: a small process that outlives the one that measures, and tells how it ended.

It is there before anything slow is imported, so that a signal or a death at any moment is told in
one line, and every run that has begun leaves a record. It is a parent and nothing else: it waits,
passes signals on, and reads what was written down (`bench.measure.run_log`).
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from bench.launch.parents import adopt_orphans, end_with_parent, ends_with_launcher
from bench.machine import own_process
from bench.measure.guard_folder import VARIABLE, guard_folder
from mnist_cnn.process import ENDING_SIGNALS, end_on_signals, is_ignored

ANSWER_SECONDS = 1.0
"""Seconds after a signal until the user is told that it is being followed."""
IMPORT_SECONDS = 1.5
"""Seconds after a signal until a process that has not begun a run is ended."""
SAVE_SECONDS = 12.0
"""Seconds after a signal until a process that has begun a run is ended."""
ORPHAN_SECONDS = 8.0
"""Seconds that the processes of a dead process have to save what they measured."""
_PASSED_ON = (
    *ENDING_SIGNALS,
    *(
        signal.Signals[name]
        for name in ("SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGVTALRM", "SIGPROF")
        if hasattr(signal, name)
    ),
)
"""Signals that would end this process: it passes them on instead."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How the process that measured has ended."""

    folder: Path
    """The guardian's folder."""
    code: int
    """Exit status; minus the signal's number where a signal ended it."""
    asked: str
    """``"ended by SIGINT"`` where a signal had asked for it; otherwise empty."""
    memory_ran_out: bool
    """Whether the system ended a process meanwhile because memory ran out."""


def run_guarded(work: Callable[[], int], conclude: Callable[[Ending], int]) -> int:
    """Do the work in a child process, and tell its end if it cannot do that itself.

    Args:
        work: what to do, in the child; returns its exit status.
        conclude: called in this process after the child; returns the exit status.

    Returns:
        In the child the status of `work`; in this process that of `conclude`.
    """
    if not hasattr(os, "fork") or guard_folder() is not None:
        return work()
    try:
        folder = Path(tempfile.mkdtemp(prefix="mnist-bench-"))
    except OSError:
        print(
            "mnist-bench: error: no temporary folder can be written to: name one in TMPDIR",
            file=sys.stderr,
        )
        return 2
    guardian = _Guardian(folder)
    try:
        with suppress(AttributeError):  # there are no such masks everywhere
            signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
        own_process.seconds_before = own_process.seconds_since_start()
        try:
            child = os.fork()
        except OSError as error:
            print(
                f"mnist-bench: error: no process can be started ({error.strerror}): end others, or "
                "raise their limit (ulimit -u)",
                file=sys.stderr,
            )
            return 1
        if child == 0:
            guardian = None  # type: ignore[assignment]
            os.environ[VARIABLE] = str(folder)
            end_with_parent()
            _restore_others()
            end_on_signals(once=True)
            return work()
        return conclude(guardian.wait_for(child))
    finally:
        if guardian is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _restore_others() -> None:
    """In the child: unblock the signals that nothing here handles."""
    with suppress(AttributeError):
        others = set(_PASSED_ON) - set(ENDING_SIGNALS)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, others)


class _Guardian:
    """Waits for one child.

    Args:
        folder: folder of what the child writes down.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._child = 0
        self._asked = ""
        self._elapsed = 0.0
        """Seconds since the signal, in steps of the alarm."""
        self._kills = _memory_kills()

    def wait_for(self, child: int) -> Ending:
        """Wait until the child and all that it started have ended."""
        self._child = child
        adopt_orphans()
        if ends_with_launcher():
            end_with_parent()
        for number in _PASSED_ON:
            if not is_ignored(number):
                signal.signal(number, self._pass_on)
        signal.signal(signal.SIGALRM, self._remind)
        with suppress(AttributeError):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        self._end_orphans()
        signal.setitimer(signal.ITIMER_REAL, 0)
        return Ending(self._folder, code, self._asked, _memory_kills() > self._kills)

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._child, number)
        if number in ENDING_SIGNALS and not self._asked:
            self._asked = f"ended by {signal.Signals(number).name}"
            signal.setitimer(signal.ITIMER_REAL, ANSWER_SECONDS, IMPORT_SECONDS - ANSWER_SECONDS)

    def _remind(self, *_: object) -> None:
        """Some time after a signal: answer, then end what does not end."""
        step = IMPORT_SECONDS - ANSWER_SECONDS
        self._elapsed += step if self._elapsed else ANSWER_SECONDS
        has_begun = (self._folder / "runs.log").exists()
        if self._elapsed == ANSWER_SECONDS and has_begun:
            print(
                f"mnist-bench: {self._asked.removeprefix('ended by ')}: the run is being ended and "
                "its record saved",
                file=sys.stderr,
            )
        if self._elapsed >= (SAVE_SECONDS if has_begun else IMPORT_SECONDS):
            signal.setitimer(signal.ITIMER_REAL, 0)
            _kill_all(os.getpid())

    def _end_orphans(self) -> None:
        """Wait for what the child has left behind, which has been told of its death."""
        signal.signal(signal.SIGALRM, lambda *_: _kill_all(os.getpid()))
        has_begun = (self._folder / "runs.log").exists()
        signal.setitimer(signal.ITIMER_REAL, ORPHAN_SECONDS if has_begun else 0.2, 1.0)
        with suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)


def _kill_all(parent: int) -> None:
    """End the descendants of a process at once."""
    import psutil  # only here: it is slow to import

    with suppress(psutil.Error):
        for process in psutil.Process(parent).children(recursive=True):
            with suppress(psutil.Error):
                process.kill()


def _memory_kills() -> int:
    """How many processes the system has ended so far because memory ran out; 0 if not known."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
