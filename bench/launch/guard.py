"""The guardian: a small process that outlives the one that measures, and reports how it ended.

It is there before anything slow is imported, so that a signal or a death at any moment is reported
in one line, and every run that has begun leaves a record. It is a parent and nothing else: it
waits, passes signals on, and reads what was written down (`bench.measure.run_log`).
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.launch.parents import (
    adopt_orphans,
    follow_parent,
    has_launcher_above,
    kill_descendants,
)
from bench.launch.silence import LOOK_SECONDS, SILENCE_SECONDS
from bench.machine import own_process
from bench.machine.cgroups import memory_kills
from bench.measure.guard_folder import (
    LOG_NAME,
    VARIABLE,
    drop_foreign_folder,
    enter_folder,
    guard_folder,
    has_begun,
    is_done,
    leave_folder,
    make_folder,
    note_done,
    note_orphaned,
)
from bench.measure.seed_share import VARIABLE as VARIABLE_OF_SHARE
from mnist_cnn import child_processes
from mnist_cnn.errors import reason_of
from mnist_cnn.leftovers import abandoned_logs
from mnist_cnn.process import (
    ENDING_SIGNALS,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    end_on_signals,
    is_ignored,
    signal_name,
)
from mnist_cnn.rank import Rank, variables_problem

ANSWER_SECONDS = 1.0
"""Seconds after a signal until the user is told that it is being followed."""
IMPORT_SECONDS = 1.5
"""Seconds after a signal until a process that has not begun a run is ended."""
SAVE_SECONDS = 12.0
"""Seconds after a signal until a process that has begun a run is ended."""
ORPHAN_SECONDS = 8.0
"""Seconds that the processes of a dead process have to save what they measured."""
_LOST_RUNS_SECONDS = 30.0
"""Longest wait for the runs of earlier commands to be saved."""
_LAUNCHER_POLLS, _LAUNCHER_POLL_SECONDS = 20, 0.02
"""How often, and after how long each time, a dying launcher is looked at."""
_PRINTED = b'["printed", null]\n'
"""Last line of the log of a process that has printed its runs; see `bench.measure.run_log`."""
_PASSED_ON = (
    *ENDING_SIGNALS,
    *(
        signal.Signals[name]
        for name in ("SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGVTALRM", "SIGPROF")
        if hasattr(signal, name)
    ),
)
"""Signals that would end this process: it passes them on instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How the process that measured has ended."""

    folder: Path
    """The guardian's folder."""
    code: int
    """Exit status; minus the signal's number where a signal ended it."""
    asked: str
    """``"ended by SIGINT"`` where a signal had asked for it; otherwise empty."""
    is_done: bool
    """Whether it ended by itself: all its lines are said."""
    memory_ran_out: bool
    """Whether the system ended a process meanwhile because memory ran out."""
    at: float
    """When it ended, by the machine's clock that never runs backwards."""
    was_stopped: bool = False
    """Whether it was ended because a signal had stopped it for too long."""


def run_guarded(work: Callable[[], int], conclude: Callable[[Ending], int]) -> int:
    """Do the work in a child process, and report its end if it cannot do that itself.

    Args:
        work: what to do, in the child; returns its exit status.
        conclude: called in this process after the child, unless all went well; returns the exit
            status.

    Returns:
        In the child the status of `work`; in this process that of `conclude`, or 0.
    """
    if drop_foreign_folder():
        print(
            f"mnist-bench: warning: {VARIABLE} of the environment is ignored: the guardian that it "
            "names did not start this process",
            file=sys.stderr,
        )
    if guard_folder() is not None:  # a rank: its parent reports its end
        if not child_processes.HAS_DEATH_SIGNAL:
            follow_parent(os.getppid())
        end_on_signals(once=True)
        return work()
    if not hasattr(os, "fork"):
        end_on_signals()
        return work()
    _bring_back_lost_runs(Path(tempfile.gettempdir()))
    watched = _wait_only_for_signals()
    try:
        folder = make_folder()
    except OSError:
        print(
            "mnist-bench: error: no temporary folder can be written to: free space in one, or "
            "name another in TMPDIR",
            file=sys.stderr,
        )
        return EXIT_USAGE
    own_process.seconds_before = own_process.seconds_since_start()
    parent = os.getpid()
    adopt_orphans()  # not later: the child may be dead before this process goes on
    try:
        child = os.fork()
    except OSError as error:
        leave_folder(folder)
        print(
            f"mnist-bench: error: no process can be started ({reason_of(error)}): end others, or "
            "raise their limit (ulimit -u)",
            file=sys.stderr,
        )
        return EXIT_FAILED
    if child == 0:
        return _work_in_child(work, folder, parent, watched)
    try:
        ending = _Guardian(folder, child, watched).wait()
        # Nothing to report, as nearly always: then nothing slow is imported.
        if _went_well(ending):
            return 0
        _answer_signals(folder)
        return conclude(ending)
    finally:
        leave_folder(folder)


def _work_in_child(
    work: Callable[[], int], folder: Path, parent: int, watched: frozenset[signal.Signals]
) -> int:
    """Undo what is the guardian's, then do the work."""
    enter_folder(folder)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    follow_parent(parent)
    end_on_signals(once=True)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, watched)
    try:
        status = work()
        note_done(folder, parent)
        return status
    finally:
        if os.getppid() != parent:  # nobody else would remove it
            leave_folder(folder)


def _bring_back_lost_runs(root: Path) -> None:
    """Save the runs of commands all whose processes were killed at once, if there are such.

    In a process of its own: what it imports must not be in the one that measures.
    """
    try:
        if next(abandoned_logs(root), None) is None:
            return  # as nearly always: then nothing slow is imported
        own = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
    except OSError:
        return  # no folder for temporary files, or no process: the command itself will say so
    if child == 0:
        status = EXIT_FAILED
        try:
            follow_parent(own)
            end_on_signals()
            from bench.launch.lost_runs import save_lost_runs

            save_lost_runs(root)
            status = 0
        except (KeyboardInterrupt, Exception) as error:
            if not isinstance(error, KeyboardInterrupt):
                print(
                    "mnist-bench: warning: runs of an earlier command that was killed could not "
                    f"be read: {type(error).__name__}",
                    file=sys.stderr,
                )
        finally:
            sys.stderr.flush()
            os._exit(status)
    end = time.monotonic() + _LOST_RUNS_SECONDS
    while os.waitpid(child, os.WNOHANG) == (0, 0) and time.monotonic() < end:
        time.sleep(_LAUNCHER_POLL_SECONDS)


def _went_well(ending: Ending) -> bool:
    """Whether all is done and said, and every run has its record."""
    if ending.code != 0 or not ending.is_done:
        return False
    if variables_problem() is None and not Rank.from_environment().is_main:
        return True
    log = ending.folder / LOG_NAME
    try:
        with log.open("rb") as lines:
            lines.seek(-min(len(_PRINTED), log.stat().st_size), os.SEEK_END)
            return lines.read() == _PRINTED
    except OSError:
        return True  # nothing was measured: --help, --dry-run


def _wait_only_for_signals() -> frozenset[signal.Signals]:
    """Let signals wait until they are asked for.

    A handler could come just before the call that waits for the child, which would then not return.
    What this process was started to ignore it goes on ignoring, and so does its child.

    Returns:
        The signals.
    """
    # One that a process ignores by default is not kept for it.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    passed_on = (number for number in _PASSED_ON if not is_ignored(number))
    watched = frozenset((*passed_on, signal.SIGCHLD, signal.SIGALRM))
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    return watched


def _answer_signals(folder: Path) -> None:
    """While the records are saved, a signal is answered; a second one ends the process."""
    while pending := signal.sigpending() & {*ENDING_SIGNALS, signal.SIGALRM}:
        signal.sigwait(pending)  # it came while the work was being ended: it asked for that
    was_told = False

    def answer(number: int, _: object) -> None:
        nonlocal was_told
        if was_told:
            leave_folder(folder)
            os._exit(EXIT_INTERRUPTED)
        was_told = True
        line = f"mnist-bench: {signal_name(number)}: the records are being saved; again: give up\n"
        with suppress(OSError):
            os.write(2, line.encode())  # the stream may be in the middle of a write

    for number in ENDING_SIGNALS:
        if not is_ignored(number):
            signal.signal(number, answer)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)


class _Guardian:
    """Waits for one child.

    Args:
        folder: folder of what the child writes down.
        child: id of the process.
        watched: the signals that wait for this process.
    """

    def __init__(self, folder: Path, child: int, watched: frozenset[signal.Signals]) -> None:
        self._folder = folder
        self._watched = watched
        self._child = child
        self._asked = ""
        self._is_ending = False
        self._elapsed = 0.0
        """Seconds since the signal, in steps of the alarm."""
        self._is_stopped = self._was_stopped = False
        self._silent_seconds = 0.0
        """Seconds for which the child has been stopped while this process was not."""
        self._kills = memory_kills()
        self._has_launcher = VARIABLE_OF_SHARE in os.environ or has_launcher_above()
        self._parent = os.getppid()

    def wait(self) -> Ending:
        """Wait until the child and all that it started have ended."""
        if self._has_launcher:
            follow_parent(self._parent)
        code: int | None = None
        while code is None:
            match signal.sigwait(self._watched):
                case signal.SIGCHLD:
                    code = self._reap()
                case signal.SIGALRM:
                    self._remind() if self._is_ending else self._count_silence()
                case number:
                    self._pass_on(number)
        at = time.monotonic()
        self._end_orphans()
        return Ending(
            folder=self._folder,
            code=code,
            asked=self._asked,
            is_done=is_done(self._folder),
            memory_ran_out=memory_kills() > self._kills,
            at=at,
            was_stopped=self._was_stopped,
        )

    def _reap(self) -> int | None:
        """The exit code of the child, if it has ended; takes away orphans that have."""
        code = None
        flags = os.WNOHANG | os.WUNTRACED | os.WCONTINUED
        with suppress(ChildProcessError):
            while (changed := os.waitpid(-1, flags)) != (0, 0):
                pid, status = changed
                if pid != self._child:
                    continue
                if os.WIFSTOPPED(status) or os.WIFCONTINUED(status):
                    self._note_stop(is_stopped=os.WIFSTOPPED(status))
                else:
                    code = os.waitstatus_to_exitcode(status)
        return code

    def _note_stop(self, *, is_stopped: bool) -> None:
        """Count for how long the child is stopped: it must not be waited for for ever."""
        self._is_stopped, self._silent_seconds = is_stopped, 0.0
        if not self._is_ending:  # else its time is limited already
            step = LOOK_SECONDS if is_stopped else 0.0
            signal.setitimer(signal.ITIMER_REAL, step, step)

    def _count_silence(self) -> None:
        """End the child when it has been stopped for too long.

        Where a user stops all of a job (Ctrl-Z), this process is stopped too and counts nothing.
        """
        if not self._is_stopped:
            return
        self._silent_seconds += LOOK_SECONDS
        if self._silent_seconds >= SILENCE_SECONDS:
            self._was_stopped = True
            signal.setitimer(signal.ITIMER_REAL, 0)
            kill_descendants()

    def _pass_on(self, number: int) -> None:
        is_orphan = number == signal.SIGTERM and self._has_lost_launcher()
        if is_orphan:
            note_orphaned(self._folder)
        with suppress(ProcessLookupError):
            os.kill(self._child, number)
        if number in ENDING_SIGNALS and not self._is_ending:
            self._is_ending = True
            self._asked = "" if is_orphan else f"ended by {signal_name(number)}"
            signal.setitimer(signal.ITIMER_REAL, ANSWER_SECONDS, IMPORT_SECONDS - ANSWER_SECONDS)

    def _has_lost_launcher(self) -> bool:
        """Whether SIGTERM comes because the launcher has died.

        It comes when the launcher's main thread has ended; its other threads take a moment longer.
        """
        for _ in range(_LAUNCHER_POLLS if self._has_launcher else 0):
            if os.getppid() != self._parent:
                return True
            time.sleep(_LAUNCHER_POLL_SECONDS)
        return False

    def _remind(self) -> None:
        """Some time after a signal: answer, then end what does not end."""
        step = IMPORT_SECONDS - ANSWER_SECONDS
        self._elapsed += step if self._elapsed else ANSWER_SECONDS
        if self._elapsed == ANSWER_SECONDS and has_begun(self._folder) and self._asked:
            print(
                f"mnist-bench: {self._asked.removeprefix('ended by ')}: the run is being ended and "
                "its record saved",
                file=sys.stderr,
            )
        if self._elapsed >= (SAVE_SECONDS if has_begun(self._folder) else IMPORT_SECONDS):
            signal.setitimer(signal.ITIMER_REAL, 0)
            kill_descendants()

    def _end_orphans(self) -> None:
        """Wait for what the child has left behind, which has been told of its death."""
        seconds = ORPHAN_SECONDS if has_begun(self._folder) else ANSWER_SECONDS / 5
        end = time.monotonic() + seconds
        signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
        while True:
            try:
                if os.waitpid(-1, os.WNOHANG) != (0, 0):
                    continue
            except ChildProcessError:
                break
            # An alarm of before may still be waiting.
            number = signal.sigwait(self._watched)
            if number == signal.SIGALRM and time.monotonic() >= end - 0.01:
                kill_descendants()
        signal.setitimer(signal.ITIMER_REAL, 0)
