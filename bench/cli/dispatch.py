"""What `run` does with its request: start other processes, or measure in this one, and print."""

from __future__ import annotations

import gc
import os
import sys

from bench.cli.output import choose_progress, get_data, print_runs
from bench.launch.parallel_seeds import (
    check_parallel_seeds,
    plan_shares,
    run_shares,
    share_commands,
)
from bench.launch.ranks import check_launched_ranks, launch_command, plan_ranks, start_ranks
from bench.launch.result import BenchmarkResult
from bench.measure.guard_folder import note_writer
from bench.measure.request import RunRequest
from bench.records.store import check_writable, gc_paused
from bench.report.trackers import TrackerRequest, log_to_trackers
from mnist_cnn.errors import UsageError
from mnist_cnn.escaping import printable_command, tell
from mnist_cnn.process import EXIT_FAILED
from mnist_cnn.rank import Rank, is_launched
from mnist_cnn.user_folders import temporary_folder


def dispatch(request: RunRequest, trackers: TrackerRequest | None) -> int:
    """Start other processes, or measure in this one; the exit status.

    Raises:
        UsageError: the request cannot be fulfilled here.
    """
    if not hasattr(os, "fork"):  # nor are there the other calls that a measurement needs
        raise UsageError(
            "benchmarks do not run on Windows itself: run them in WSL 2 (Windows Subsystem for "
            "Linux); report, compare and verify work here"
        )
    if request.parallel_seeds is not None:
        check_parallel_seeds(request, is_rank=is_launched())
        if request.share is None:
            return _run_in_parallel(request, trackers)
    if is_launched():
        check_launched_ranks(request.ranks)
        if request.dry_run:
            raise UsageError("--dry-run shows how processes are started, and these are already")
    elif request.share is None:
        plan = plan_ranks(request)
        if request.dry_run:
            print(printable_command(launch_command(request, plan)))
            return 0
        if plan.here is not None:
            return start_ranks(request, plan)
    if request.profile is not None:
        return _profile(request)
    return _run_here(request, trackers)


def _run_here(request: RunRequest, trackers: TrackerRequest | None) -> int:
    """Measure in this process."""
    is_main = Rank.from_environment().is_main
    if is_main:
        _check_outputs(request, trackers)
    silent = request.output.silent
    progress = choose_progress(is_main=is_main, silent=silent, alone=request.share is None)
    # Lazy: torch is slow to import, and bad input is refused before.
    with gc_paused():
        from bench.launch.local_run import run_locally

    # What was imported stays to the end. So no collection of garbage goes through all of torch,
    # neither in a measurement nor when the interpreter ends, which would take a second. Triton's
    # binding would complain at that end of what was frozen; it is imported later, where it is.
    if "triton" not in sys.modules:
        gc.freeze()

    result = run_locally(
        request, progress, lambda: get_data(request.data_dir, silent or not is_main)
    )
    has_parent = request.share is not None and bool(request.share.records)
    if not is_main or has_parent:
        result.note_printed()
        return result.status
    return _finish(result, request, trackers)


def _run_in_parallel(request: RunRequest, trackers: TrackerRequest | None) -> int:
    """Let other processes make the runs, and print their results."""
    with temporary_folder() as folder:
        plan = plan_shares(request, "" if request.dry_run else str(folder))
        if request.dry_run:
            print(printable_command(share_commands(request.command, plan)))
            return 0
        _check_outputs(request, trackers)
        get_data(request.data_dir, request.output.silent)
        result = run_shares(request.command, plan, request.output.results_dir)
    return _finish(result, request, trackers)


def _profile(request: RunRequest) -> int:
    from bench.measure.profiling import profile_warm_up

    profiled = profile_warm_up(
        request,
        fetch_data=lambda silent: get_data(request.data_dir, silent),
        notify=tell,
    )
    if profiled is None:
        return 0
    print(profiled.report)
    if profiled.problem is not None:
        tell(f"mnist-bench: error: {profiled.problem}")
        return EXIT_FAILED
    return 0


def _check_outputs(request: RunRequest, trackers: TrackerRequest | None) -> None:
    """Refuse folders that cannot be written to, before anything is trained."""
    if request.output.results_dir is not None:
        note_writer(request.output.results_dir)
        check_writable(request.output.results_dir)
    if trackers is not None:
        trackers.check_writable()


def _finish(result: BenchmarkResult, request: RunRequest, trackers: TrackerRequest | None) -> int:
    """Print the runs and log them with the trackers.

    Returns:
        The exit status.
    """
    if not result.runs:
        return result.status
    try:
        print_runs(result, as_json=request.output.as_json)
        sys.stdout.flush()
    finally:  # a full disk refuses what the guardian would print, too
        result.note_printed()
    if trackers is None:
        return result.status
    quiet = request.output.quiet
    return max(result.status, log_to_trackers(result.records, request.recipe, trackers, quiet))
