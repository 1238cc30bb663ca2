"""Make the runs of this process and save each record as soon as its run is over."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable
from contextlib import closing

from bench.launch import supervisor
from bench.launch.parallel_seeds import leave_record
from bench.launch.result import BenchmarkResult, exit_status_of, save_or_complain
from bench.measure.interruption import Interruption
from bench.measure.plan_chain import PlanChain
from bench.measure.progress import RunProgress
from bench.measure.request import RunRequest
from bench.measure.runner import MeasuredRun
from bench.measure.session import Frontend, open_session
from bench.text import printable
from mnist_cnn.console import EXIT_INTERRUPTED
from mnist_cnn.errors import UnwrittenCheckpointError
from mnist_cnn.rank import Rank

_ADDRESS = re.compile(r"\[[0-9A-Fa-f.:]+\](?::\d+)?")
"""An address as gloo writes it: ``[10.0.0.2]:4711``."""


def run_locally(
    request: RunRequest, progress: RunProgress, fetch_data: Callable[[], dict[str, str]]
) -> BenchmarkResult:
    """Measure what a request asks for in this process.

    Args:
        request: what to measure.
        progress: shows how far the benchmark is.
        fetch_data: gets MNIST where it is missing.

    Raises:
        UsageError: the request is impossible here.
    """
    interruption = Interruption()
    result, failed = BenchmarkResult(), False
    frontend = Frontend(progress=progress, fetch_data=fetch_data, signals=interruption)
    try:
        with interruption, open_session(request, frontend) as session:
            result.runs += [(None, record) for record in session.earlier]
            with closing(session.runs()) as runs:  # type: ignore[type-var]
                for run in map(explain_failure, runs):
                    failed |= _keep(run, request, result, session.chain)
                    is_over = session.any_rank(result.is_unsaved, run)
                    if interruption.asked or is_over:
                        break
    except KeyboardInterrupt:
        if Rank.from_environment().is_main:
            print("mnist-bench: interrupted while no run was being measured", file=sys.stderr)
    if interruption.asked:
        result.status = EXIT_INTERRUPTED
    # When a rank ends with an error, its supervisor ends the others, rank 0 perhaps while it saves.
    # So where all ranks saw the same outcome, only the first rank of each machine reports it.
    if not Rank.from_environment().is_first_on_machine:
        result.status = result.status if failed else 0
    return result


def _keep(
    run: MeasuredRun, request: RunRequest, result: BenchmarkResult, chain: PlanChain | None
) -> bool:
    """Save a run's record and add it to the result.

    Returns:
        Whether an exception, other than an interruption, ended the run.
    """
    record, error = run
    record = record if chain is None else chain.link(record)
    folder = request.output.results_dir if Rank.from_environment().is_main else None
    path = None if folder is None else save_or_complain(record, folder)
    if chain is not None and path is not None:
        chain.add(path)
    if request.share is not None:
        leave_record(record, request.share)
    failed = error is not None and not isinstance(error, KeyboardInterrupt)
    if isinstance(error, UnwrittenCheckpointError):
        print(f"mnist-bench: error: {printable(str(error))}", file=sys.stderr)
    elif failed:
        traceback.print_exception(error)
    result.runs.append((path, record))
    unsaved = folder is not None and path is None
    result.is_unsaved |= unsaved
    result.status = max(result.status, exit_status_of(record, unsaved=unsaved))
    return failed


def explain_failure(run: MeasuredRun) -> MeasuredRun:
    """Say in the record which rank died first: the run's own error is only a lost connection."""
    record = run.record
    if record.status != "failed" or record.setup.processes == 1:
        return run
    cause = supervisor.first_failure()
    if cause is None:
        if record.setup.machines == 1:
            return run
        cause = "no process of this machine died first, so another machine or the network did"
    # Network errors name the addresses of other machines, which a record must not hold.
    reason = _ADDRESS.sub("another rank", f"{cause}; {record.reason}")
    return MeasuredRun(record.model_copy(update={"reason": reason}), run.error)
