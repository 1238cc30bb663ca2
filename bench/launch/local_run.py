"""Make the runs of this process and save each record as soon as its run is over."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import closing

from bench.launch.parallel_seeds import leave_record
from bench.launch.result import BenchmarkResult, exit_status_of, save_or_complain
from bench.measure.guard_folder import guard_folder
from bench.measure.interruption import Interruption
from bench.measure.progress import RunProgress
from bench.measure.rank_ends import (
    EndKind,
    LostRankError,
    announce_rank,
    first_end,
    is_lost_connection,
    report_end,
)
from bench.measure.request import RunRequest
from bench.measure.runner import MeasuredRun
from bench.measure.session import Frontend, Session, open_session
from bench.text import printable
from mnist_cnn.console import EXIT_FAILED, EXIT_INTERRUPTED, show_traceback
from mnist_cnn.errors import DamagedCheckpointError, UnwrittenCheckpointError, UsageError
from mnist_cnn.failure import describe_error
from mnist_cnn.process import ParentDiedError
from mnist_cnn.rank import Rank


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
    result, failed = BenchmarkResult(), False
    interruption = Interruption()
    frontend = Frontend(progress=progress, fetch_data=fetch_data, signals=interruption)
    announce_rank()
    try:
        with interruption, open_session(request, frontend) as session:
            result.log = session.log
            result.runs += [(None, record) for record in session.earlier]
            with closing(session.runs()) as runs:  # type: ignore[type-var]
                for run in runs:
                    failed |= _keep(run, request, result, session)
                    is_over = session.any_rank(result.is_unsaved, run)
                    if interruption.asked and run.error is None:
                        # Between two runs: the others would call this rank lost.
                        _report(*_end_of(interruption.error, str(interruption.error)))
                    if interruption.asked or is_over:
                        break
    except KeyboardInterrupt as error:
        _report(EndKind.INTERRUPTED, f"was {error}" if str(error) else "was interrupted")
        result.status = EXIT_INTERRUPTED
        if Rank.from_environment().is_main and guard_folder() is None:
            print("mnist-bench: interrupted while no run was being measured", file=sys.stderr)
    except (UsageError, DamagedCheckpointError):
        raise
    except BaseException as error:  # MemoryError and SystemExit too: nothing must end in silence
        result.status, failed = max(result.status, EXIT_FAILED), True
        _complain(error)
    if interruption.asked and result.status != EXIT_FAILED:
        result.status = EXIT_INTERRUPTED
    # When a rank ends with an error, its supervisor ends the others, rank 0 perhaps while it saves.
    # So where all ranks saw the same outcome, only the first rank of each machine reports it.
    if not Rank.from_environment().is_first_on_machine:
        result.status = result.status if failed else 0
    return result


def _keep(run: MeasuredRun, request: RunRequest, result: BenchmarkResult, session: Session) -> bool:
    """Save a run's record and add it to the result.

    Returns:
        Whether an exception, other than an interruption, ended the run.
    """
    record, error = run
    failed = error is not None and not isinstance(error, KeyboardInterrupt)
    if isinstance(error, KeyboardInterrupt):
        _report(*_end_of(error, record.reason))
    elif error is not None and not is_lost_connection(error):
        _report(EndKind.CAUSE, f"failed: {record.reason}")
        show_traceback(error)
    chain, log = session.chain, session.log
    if log is not None:
        log.run_over(record)
    folder = request.output.results_dir if Rank.from_environment().is_main else None
    path = None if folder is None else save_or_complain(record, folder)
    if chain is not None and path is not None:
        chain.add(path)
    if request.share is not None:
        leave_record(record, request.share)
    if log is not None:
        log.record_kept()
    if isinstance(error, UnwrittenCheckpointError):
        print(f"mnist-bench: error: {printable(str(error))}", file=sys.stderr)
    result.runs.append((path, record))
    unsaved = folder is not None and path is None
    result.is_unsaved |= unsaved
    result.status = max(result.status, exit_status_of(record, unsaved=unsaved))
    return failed


def _end_of(error: KeyboardInterrupt, reason: str | None) -> tuple[EndKind, str]:
    """What to report of a rank that was asked to end.

    Args:
        error: how it was asked.
        reason: the same in words.
    """
    if not isinstance(error, ParentDiedError):
        return EndKind.INTERRUPTED, f"was {reason}"
    # torchrun asks the other ranks to end: they must know that nobody has interrupted them.
    kind = EndKind.CAUSE if "TORCHELASTIC_RUN_ID" in os.environ else EndKind.LEFT
    return kind, "was told that its parent had died"


def _complain(error: BaseException) -> None:
    """Say in one line why the benchmark ends; of a lost rank, only rank 0 of each machine does."""
    rank = Rank.from_environment()
    if is_lost_connection(error):
        end = first_end()
        if end is not None and not isinstance(error, LostRankError):
            error = LostRankError(str(end))
        if rank.is_first_on_machine and not (end is not None and end.kind == EndKind.CAUSE):
            # Of what ended a rank, its parent or the rank itself says it.
            print(f"mnist-bench: error: {describe_error(error)}", file=sys.stderr)
        return
    reason = describe_error(error)
    report_end(rank.index, EndKind.CAUSE, f"failed: {reason}")
    where = f"rank {rank.index}: " if rank.world_size > 1 else ""
    print(f"mnist-bench: error: {where}{reason}", file=sys.stderr)
    show_traceback(error)


def _report(kind: EndKind, what: str) -> None:
    rank = Rank.from_environment()
    if rank.world_size > 1:
        report_end(rank.index, kind, what)
