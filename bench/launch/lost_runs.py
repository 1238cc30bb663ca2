"""Runs of commands all whose processes were killed at once: the next command saves them.

Nobody was left to do it then, but the log of the runs was: `bench.measure.run_log`.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil

from bench.launch.recovery import save_in_time
from bench.measure.guard_folder import writers
from bench.measure.run_log import LoggedBenchmark, log_path, read_run_log
from bench.records.schema import RunRecord, Status
from bench.records.store import record_path
from bench.text import count_of, printable
from mnist_cnn.leftovers import abandoned_logs, remove_files_of

ALL_ENDED = "ended with all its processes"
"""Reason in the record of a run that was going on."""


def save_lost_runs(root: Path) -> None:
    """Save the runs that logs in temporary folders tell of, say so, and remove these folders.

    Args:
        root: the folder of temporary folders.
    """
    for folder in abandoned_logs(root):
        if _has_writer(folder):
            continue  # a rank that has lost its parents saves its record itself
        try:
            benchmark = read_run_log(log_path(folder))
        except OSError:
            benchmark = LoggedBenchmark()  # a pipe, a link: no log of ours
        _save_runs(benchmark)
        for process, results_dir in writers(folder):
            remove_files_of(process, results_dir)
        shutil.rmtree(folder, ignore_errors=True)


def _save_runs(benchmark: LoggedBenchmark) -> None:
    """Save the runs that are not saved yet, with one line for all of them."""
    if benchmark.results_dir is None:
        return
    results_dir = benchmark.working_dir / benchmark.results_dir
    saved: list[RunRecord] = []
    for run in benchmark.runs:
        if run.is_kept:
            continue
        record = run.record_of_the_end(Status.FAILED, ALL_ENDED)
        # Its process may have died just after it had saved it.
        is_new = not os.path.lexists(record_path(record, results_dir))
        if is_new and save_in_time(record, results_dir) is not None:
            saved.append(record)
    if saved:
        statuses = Counter(record.status for record in saved)
        counts = ", ".join(f"{number} {status}" for status, number in statuses.items())
        print(
            f"mnist-bench: {count_of(len(saved), 'run')} of an earlier command that was killed "
            f"with all its processes: saved in {printable(str(results_dir))} ({counts})",
            file=sys.stderr,
        )


def _has_writer(folder: Path) -> bool:
    """Whether a process that writes records for this folder is alive."""
    for process, _ in writers(folder):
        with suppress(psutil.Error, OSError, ValueError, OverflowError):
            noted = (folder / f"writer-{process}").stat().st_mtime
            alive = psutil.Process(process)
            is_same = alive.create_time() <= noted + 1.0  # else its id is used again
            if is_same and alive.status() != psutil.STATUS_ZOMBIE:
                return True
    return False
