"""`mnist-bench run --parallel-seeds`: several runs at the same time, a process each."""

from __future__ import annotations

import os
import shlex
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.launch import supervisor
from bench.launch.guard import ORPHAN_SECONDS
from bench.launch.parents import adopt_orphans, wait_for_orphans
from bench.launch.ranks import SCRIPT
from bench.launch.result import BenchmarkResult
from bench.launch.supervisor import EndedProcesses
from bench.machine.cores import usable_cores
from bench.measure import seed_share
from bench.measure.guard_folder import VARIABLE, note_begun
from bench.measure.request import RunRequest
from bench.measure.seed_share import SeedShare
from bench.records import store
from bench.records.schema import RunRecord
from bench.text import count_of
from mnist_cnn.console import EXIT_FAILED, EXIT_INTERRUPTED
from mnist_cnn.disk import advice_for
from mnist_cnn.errors import UsageError, reason_of
from mnist_cnn.process import signal_name
from mnist_cnn.whole_numbers import MOST_PROCESSES, parse_whole


@dataclass(frozen=True, slots=True)
class SharePlan:
    """The processes that make a benchmark together."""

    shares: tuple[SeedShare, ...]
    """Runs of each process; at least one process."""
    gpus: int
    """Number of CUDA devices that the processes divide among themselves; 0 for none."""

    def environments(self) -> list[dict[str, str]]:
        """The variables that each process gets on top of the inherited ones."""
        return [
            supervisor.rank_variables(share.threads) | share.variables(self.gpus)
            for share in self.shares
        ]


def check_parallel_seeds(request: RunRequest, *, is_rank: bool) -> None:
    """Refuse options that contradict --parallel-seeds.

    Args:
        request: the whole command line.
        is_rank: whether a launcher started this process.

    Raises:
        UsageError: says which option to leave out.
    """
    conflicts = {
        "--processes": request.ranks.processes is not None,
        "--machines": request.ranks.machines is not None,
        "--checkpoint-every and --resume": request.checkpoints is not None,
        "--profile": request.profile is not None,
        "--runs auto": request.protocol.half_width is not None,
    }
    for option, is_given in conflicts.items():
        if is_given:
            raise UsageError(f"--parallel-seeds goes without {option}: leave one of the two out")
    if is_rank:
        raise UsageError(
            "--parallel-seeds starts its own processes, and this one was started by a launcher: "
            "use mnist-bench run"
        )


def plan_shares(request: RunRequest, records_dir: str) -> SharePlan:
    """Divide the runs of a benchmark among processes.

    Args:
        request: what to measure.
        records_dir: folder where the processes leave their records; empty for none.

    Raises:
        UsageError: the request is impossible here.
    """
    # Lazy: torch is slow to import. It knows the devices, and one process asks it instead of all.
    from bench.measure import plan

    compute = request.compute
    plan.resolve_plan(request.recipe, compute)
    gpus = plan.count_visible_gpus(compute.device)
    cores = usable_cores()
    count = min(_process_count(request, gpus, cores), request.protocol.runs)
    threads = compute.threads or max(1, cores // count)
    if count * threads > cores:
        print(
            f"mnist-bench: warning: {count_of(count, 'run')} of {count_of(threads, 'thread')} at a "
            f"time on {count_of(cores, 'core')} wait for each other",
            file=sys.stderr,
        )
    benchmark_id, visible = uuid.uuid4().hex, seed_share.visible_devices()
    planned_at = datetime.now(UTC).isoformat()
    shares = (
        SeedShare(index, count, benchmark_id, threads, visible, records_dir, planned_at)
        for index in range(count)
    )
    return SharePlan(tuple(shares), gpus)


def share_commands(command: Sequence[str], plan: SharePlan) -> str:
    """The shell commands, one line each, that start the same processes; to be run side by side.

    Args:
        command: words of the command line, from the name of the command on.
        plan: the processes.
    """
    program = [sys.executable, str(SCRIPT), *(word for word in command[1:] if word != "--dry-run")]
    return "\n".join(
        shlex.join(["env", *(f"{name}={variables[name]}" for name in sorted(variables)), *program])
        for variables in plan.environments()
    )


def run_shares(
    command: Sequence[str], plan: SharePlan, results_dir: Path | None
) -> BenchmarkResult:
    """Start the processes and wait for all of them.

    Args:
        command: words of the command line, from the name of the command on.
        plan: the processes, which leave their records in a folder of their own.
        results_dir: folder where the processes save records; None where they do not.

    Returns:
        The runs in the order of their index, and the exit status.
    """
    note_begun()  # from here on the processes have something to save
    # Each of these processes has a guardian of its own.
    foreign = [*supervisor.foreign_variables(), VARIABLE]
    inherited = {name: value for name, value in os.environ.items() if name not in foreign}
    adopt_orphans()
    ended = supervisor.run_each(
        [sys.executable, str(SCRIPT), *command[1:]],
        [inherited | variables for variables in plan.environments()],
    )
    if any(code < 0 for code in ended.codes):
        wait_for_orphans(ORPHAN_SECONDS)  # where a guardian was killed, its process still saves
    for share, code in zip(plan.shares, ended.codes, strict=True):
        if code < 0:
            print(
                f"mnist-bench: process {share.index + 1} of {share.count} was ended by "
                f"{signal_name(-code)}; the runs it had left are missing",
                file=sys.stderr,
            )
    read = store.read_records([Path(plan.shares[0].records)])
    records = sorted((record for _, record in read.records), key=lambda record: record.run_index)
    runs = [(_saved_path(record, results_dir), record) for record in records]
    return BenchmarkResult(runs, _exit_status(ended))


def leave_record(record: RunRecord, share: SeedShare) -> None:
    """Leave a record for the process that started this one, which prints the table."""
    if not share.records:
        return
    try:
        store.save_record(record, Path(share.records))
    except OSError as error:
        print(
            f"mnist-bench: warning: the table will lack run {record.run_index}, because the folder "
            f"for temporary files fails ({reason_of(error)}): {advice_for(error)}",
            file=sys.stderr,
        )


def _process_count(request: RunRequest, gpus: int, cores: int) -> int:
    """Processes at the same time: "auto" is one a GPU, on a CPU as many as have their threads."""
    if request.parallel_seeds == "auto":
        return gpus or max(1, cores // (request.compute.threads or 1))
    try:
        count = parse_whole(request.parallel_seeds or "", MOST_PROCESSES, word_besides="auto")
    except ValueError as error:
        raise UsageError(f"--parallel-seeds {error}") from None
    if count < 1:
        raise UsageError(f"--parallel-seeds must be at least 1, not {count}")
    return count


def _saved_path(record: RunRecord, results_dir: Path | None) -> Path | None:
    if results_dir is None:
        return None
    path = store.record_path(record, results_dir)
    return path if path.exists() else None


def _exit_status(ended: EndedProcesses) -> int:
    if ended.interrupted or EXIT_INTERRUPTED in ended.codes:
        return EXIT_INTERRUPTED
    return max(EXIT_FAILED if code < 0 else code for code in ended.codes)
