"""What is left to do when the process that measured has ended: its records, and one line."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.launch.guard import Ending
from bench.launch.result import BenchmarkResult
from bench.launch.unsaved import keep_elsewhere
from bench.measure.guard_folder import has_begun, writers
from bench.measure.rank_ends import (
    MEMORY_RAN_OUT,
    RANKS_NAME,
    STOPPED,
    EndKind,
    report_end,
    reported_ends,
)
from bench.measure.run_log import LoggedBenchmark, LoggedRun, log_path, read_run_log
from bench.records.record_file import to_json
from bench.records.schema import RunRecord, Status
from bench.records.store import record_path, save_record
from mnist_cnn.disk import write_new_file
from mnist_cnn.leftovers import remove_files_of
from mnist_cnn.process import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, exit_reason
from mnist_cnn.rank import Rank, has_launcher, variables_problem

FILE_SECONDS = 5.0
"""Longest time for a record's file; what is promised is an end within 15 s."""
FALLBACK_SECONDS = 2.0
"""The same in each of the folders that are tried next."""


@dataclass(slots=True)
class Recovery:
    """What the process has left, and how the command ends."""

    status: int
    """Exit status."""
    result: BenchmarkResult = field(default_factory=BenchmarkResult)
    """All runs, where the process did not come to print them; otherwise none."""
    as_json: bool = False


def recover(ending: Ending) -> Recovery:
    """Make and save the records that are missing, and say on stderr how the process has ended."""
    try:
        return _recover(ending)
    finally:
        for process, results_dir in writers(ending.folder):
            remove_files_of(process, results_dir)


def _recover(ending: Ending) -> Recovery:
    rank = Rank() if variables_problem() else Rank.from_environment()
    if has_launcher() and rank.world_size > 1 and ending.code:
        _report_own_rank(rank, ending)
    if ending.code == EXIT_USAGE:
        return Recovery(EXIT_USAGE)  # it has said why, and what it refuses is no outcome of a run
    path = log_path(ending.folder)
    benchmark = read_run_log(path) if rank.is_main and path.exists() else LoggedBenchmark()
    is_complete = benchmark.is_printed and all(run.is_kept for run in benchmark.runs)
    if not benchmark.runs or is_complete:
        return Recovery(_status_without_work(ending, has_runs=bool(benchmark.runs)))
    result = _recover_runs(benchmark, ending)
    with suppress(OSError):  # else a later command would take its runs for lost ones
        path.unlink()
    if benchmark.is_printed or benchmark.share_records is not None:
        # It has printed its runs, or the process that started it does.
        return Recovery(result.status)
    return Recovery(result.status, result, benchmark.as_json)


def cause_of(ending: Ending) -> str:
    """Who ended first, and of what."""
    first = next(iter(reported_ends(ending.folder)), None)
    is_supervisor = (ending.folder / RANKS_NAME).exists()
    is_own_end = first is None or first.kind > EndKind.CAUSE
    if is_own_end and (ending.was_stopped or (is_supervisor and ending.code < 0)):
        who = "the supervisor of the ranks" if is_supervisor else "the process"
        cause = f"{who} {STOPPED if ending.was_stopped else exit_reason(ending.code)}"
    elif first is not None:
        cause = str(first) if is_supervisor or has_launcher() else first.what
    else:
        cause = f"the process {_unexplained(ending.code)}"
    if ending.memory_ran_out and cause.endswith("SIGKILL"):
        cause += MEMORY_RAN_OUT
    return cause


def _report_own_rank(rank: Rank, ending: Ending) -> None:
    """Report to the guardians of the other ranks how this one has ended."""
    what = _unexplained(ending.code)
    if ending.was_stopped:
        kind, what = EndKind.STOPPED, STOPPED
    elif ending.asked:
        kind = EndKind.INTERRUPTED
    else:
        kind = EndKind.CAUSE if ending.code < 0 else EndKind.LEFT
    report_end(rank.index, kind, what, ending.folder, ending.at)


def _recover_runs(benchmark: LoggedBenchmark, ending: Ending) -> BenchmarkResult:
    """Save the records that the process did not save, and say what has ended it."""
    _show_cursor()
    cause = cause_of(ending)
    result = BenchmarkResult(status=EXIT_FAILED)
    status = Status.FAILED
    if ending.asked:
        result.status, status = EXIT_INTERRUPTED, Status.INTERRUPTED
    for run in benchmark.runs:
        record = run.record_of_the_end(status, ending.asked or cause)
        result.runs.append((_keep(run, record, benchmark), record))
    if not ending.asked and "failed: " not in cause:  # else the process has said it itself
        print(f"mnist-bench: error: {cause}", file=sys.stderr)
    return result


def _keep(run: LoggedRun, record: RunRecord, benchmark: LoggedBenchmark) -> Path | None:
    """Save a record where its process should have; returns its file in the results folder."""
    if run.is_kept:
        return None
    if benchmark.share_records is not None:
        with suppress(OSError):  # whoever waits for it may be gone
            save_record(record, benchmark.share_records)
    return None if benchmark.results_dir is None else save_in_time(record, benchmark.results_dir)


def save_in_time(record: RunRecord, folder: Path) -> Path | None:
    """Save a record, in another way than its process: what ended that must not end this one too.

    Where that fails it is kept elsewhere, and a line says so. Neither takes for ever.

    Returns:
        Its file; None where it could not be written in the results folder.
    """
    path = record_path(record, folder)
    try:
        with _time_limit(FILE_SECONDS):
            if not path.exists():  # the process may have died just after it had saved it
                _write(record, path)
    except OSError as error:
        # Each folder that is tried has the time: it may be on the same server.
        with _time_limit(FALLBACK_SECONDS):
            keep_elsewhere(record, folder, error)
        return None
    return path


def _write(record: RunRecord, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_new_file(path, to_json(record).encode())


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Give up files that do not answer: those of a network folder whose server is gone.

    Args:
        seconds: after so many, and again after as many, what is waited for is given up.

    Raises:
        TimeoutError: it took longer.
    """

    def give_up(*_: object) -> None:
        raise TimeoutError(errno.ETIMEDOUT, f"no answer within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, give_up)
    # A guardian has blocked it: it waits for its signals.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGALRM,))
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _status_without_work(ending: Ending, *, has_runs: bool) -> int:
    """The exit status where no record is missing, and a line where nobody has said one."""
    was_interrupted = ending.code == EXIT_INTERRUPTED or (ending.asked and ending.code < 0)
    if was_interrupted:
        if not has_begun(ending.folder):
            print("mnist-bench: interrupted while no run was being measured", file=sys.stderr)
        return EXIT_INTERRUPTED
    if ending.is_done and ending.code >= 0:
        return ending.code
    _show_cursor()
    when = "" if has_runs or has_begun(ending.folder) else ", before the first run"
    print(f"mnist-bench: error: {cause_of(ending)}{when}", file=sys.stderr)
    return EXIT_FAILED


def _unexplained(code: int) -> str:
    """How a process has ended that said nothing of it."""
    return exit_reason(code) if code < 0 else f"{exit_reason(code)} and without a word"


def _show_cursor() -> None:
    """Show the cursor that the progress display of the dead process has hidden."""
    if sys.stderr.isatty():
        print("\x1b[?25h", end="", file=sys.stderr, flush=True)
