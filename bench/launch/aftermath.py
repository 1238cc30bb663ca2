"""What is left to do when the process that measured has ended: its records, and one line."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.launch.guard import Ending
from bench.launch.result import BenchmarkResult, save_or_complain
from bench.measure.guard_folder import has_begun
from bench.measure.rank_ends import RANKS_NAME, How, RankEnd, tell_end, told_ends
from bench.measure.run_log import LoggedBenchmark, LoggedRun, log_path, read_run_log
from bench.records.record_file import to_json
from bench.records.schema import RunRecord, Status
from bench.records.store import record_path, save_record
from mnist_cnn.console import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE
from mnist_cnn.disk import write_new_file
from mnist_cnn.process import signal_name
from mnist_cnn.rank import Rank, has_launcher, variables_problem


@dataclass(slots=True)
class Aftermath:
    """What the process has left, and how the command ends."""

    status: int
    """Exit status."""
    result: BenchmarkResult = field(default_factory=BenchmarkResult)
    """All runs, where the process did not come to print them; otherwise none."""
    as_json: bool = False


def complete(ending: Ending) -> Aftermath:
    """Make and save the records that are missing, and say on stderr how the process has ended."""
    rank = Rank() if variables_problem() else Rank.from_environment()
    if has_launcher() and rank.world_size > 1 and ending.code:
        how = How.CAUSE if ending.code < 0 else How.LEFT
        how = How.INTERRUPTED if ending.asked else how
        tell_end(rank.index, how, _how(ending.code), ending.folder, ending.at)
    if ending.code == EXIT_USAGE:
        return Aftermath(EXIT_USAGE)  # it has said why, and what it refuses is no outcome of a run
    path = log_path(ending.folder)
    has_log = rank.is_main and path.exists()
    benchmark = read_run_log(path) if has_log else LoggedBenchmark()
    was_asked = bool(ending.asked)
    is_complete = benchmark.is_told and all(run.is_kept for run in benchmark.runs)
    if not benchmark.runs or is_complete:
        return Aftermath(_status_without_work(ending, has_runs=bool(benchmark.runs)))
    cause = cause_of(ending)
    _show_cursor()
    result = BenchmarkResult(status=EXIT_INTERRUPTED if was_asked else EXIT_FAILED)
    status = Status.INTERRUPTED if was_asked else Status.FAILED
    for run in benchmark.runs:
        _keep(run, benchmark, result, status, ending.asked or cause)
    if not was_asked and "failed: " not in cause:  # else the process has said it itself
        print(f"mnist-bench: error: {cause}", file=sys.stderr)
    if benchmark.is_told or benchmark.share_records is not None:
        # It has printed its runs, or the process that started it does.
        return Aftermath(result.status)
    return Aftermath(result.status, result, benchmark.as_json)


def cause_of(ending: Ending) -> str:
    """Who ended first, and of what."""
    told: RankEnd | None = next(iter(told_ends(ending.folder)), None)
    is_supervisor = (ending.folder / RANKS_NAME).exists()
    if is_supervisor and ending.code < 0 and (told is None or told.how > How.CAUSE):
        cause = f"the supervisor of the ranks {_how(ending.code)}"
    elif told is not None:
        cause = str(told) if is_supervisor or has_launcher() else told.what
    else:
        cause = f"the process {_how(ending.code)}"
    if ending.memory_ran_out and "SIGKILL" in cause:
        cause += ": the system was out of memory"
    return cause


def _keep(
    run: LoggedRun,
    benchmark: LoggedBenchmark,
    result: BenchmarkResult,
    status: Status,
    reason: str,
) -> None:
    record = run.record_of_the_end(status, reason)
    path = None
    if not run.is_kept:
        if benchmark.results_dir is not None:
            path = _save(record, benchmark.results_dir)
        if benchmark.share_records is not None:
            with suppress(OSError):  # whoever waits for it may be gone
                save_record(record, benchmark.share_records)
    result.runs.append((path, record))


def _save(record: RunRecord, folder: Path) -> Path | None:
    path = record_path(record, folder)
    try:
        if not path.exists():  # the process may have died just after it had saved it
            path.parent.mkdir(parents=True, exist_ok=True)
            write_new_file(path, to_json(record).encode())
    except OSError:
        return save_or_complain(record, folder)
    return path


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


def _how(code: int) -> str:
    if code < 0:
        return f"was ended by {signal_name(-code)}"
    return f"ended with status {code} and without a word"


def _show_cursor() -> None:
    """The progress display hides it, and could not show it again."""
    if sys.stderr.isatty():
        print("\x1b[?25h", end="", file=sys.stderr, flush=True)
