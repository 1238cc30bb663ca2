"""`mnist-bench run --parallel-seeds`: independent runs, several at a time, a process each."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

from bench.launch import supervisor
from bench.launch.ranks import SCRIPT
from bench.launch.supervisor import EndedProcesses
from bench.machine.cores import usable_cores
from bench.measure import seed_share
from bench.measure.request import Wish
from bench.measure.seed_share import SeedShare
from bench.records import store
from bench.records.protocol import BenchmarkProtocol
from bench.records.schema import RunRecord
from bench.text import count_of
from mnist_cnn.console import EXIT_FAILED, EXIT_INTERRUPTED
from mnist_cnn.errors import UsageError
from mnist_cnn.recipe import Recipe


def check_parallel_seeds(
    wish: Wish, protocol: BenchmarkProtocol, *, keeping: bool, profile: bool, is_rank: bool
) -> None:
    """Refuse what does not go with runs that are made several at a time.

    Raises:
        UsageError: with what to leave out.
    """
    others = {
        "--processes": wish.processes is not None,
        "--machines": wish.machines is not None,
        "--checkpoint-every and --resume": keeping,
        "--profile": profile,
        "--runs auto": protocol.half_width is not None,
    }
    for option, asked in others.items():
        if asked:
            raise UsageError(f"--parallel-seeds goes without {option}: leave one of the two out")
    if is_rank:
        raise UsageError(
            "--parallel-seeds starts its own processes, and this one was started by a launcher: "
            "use mnist-bench run"
        )


def plan_shares(
    text: str, wish: Wish, recipe: Recipe, runs: int, folder: str
) -> tuple[list[SeedShare], int]:
    """The processes' parts, once it is known that what is asked for can be had here.

    Args:
        text: how many at a time; "auto" for a GPU each, on a CPU as many as have their threads.
        wish: device, precision, threads and kernels of each run.
        recipe: what is to be trained.
        runs: in all; there are no more processes than that.
        folder: where they leave records; empty for nowhere.

    Returns:
        They, and the number of CUDA devices to be shared out among them.

    Raises:
        UsageError: it cannot be had.
    """
    # torch knows the device; better here, once, than by every process.
    from bench.measure import plan

    plan.resolve_plan(recipe, wish.device, wish.precision, wish.threads, wish.kernels)
    gpus = plan.count_visible_gpus(wish.device)
    cores = usable_cores()
    if text == "auto":
        count = gpus or max(1, cores // (wish.threads or 1))
    else:
        try:
            count = int(text)
        except ValueError:
            raise UsageError(f"--parallel-seeds must be a number or auto, not {text!r}") from None
    if count < 1:
        raise UsageError(f"--parallel-seeds must be at least 1, not {count}")
    count = min(count, runs)
    threads = wish.threads or max(1, cores // count)
    if count * threads > cores:
        print(
            f"mnist-bench: warning: {count_of(count, 'run')} of {count_of(threads, 'thread')} at a "
            f"time on {count_of(cores, 'core')} wait for each other",
            file=sys.stderr,
        )
    benchmark, visible = uuid.uuid4().hex, seed_share.visible_devices()
    return [SeedShare(k, count, benchmark, threads, visible, folder) for k in range(count)], gpus


def share_commands(words: Sequence[str], shares: Sequence[SeedShare], gpus: int) -> str:
    """The commands for a shell, a line each, to be started at the same time.

    Args:
        words: of the command line, from the command's name on.
        shares: of the benchmark.
        gpus: CUDA devices that may be seen.
    """
    command = [sys.executable, str(SCRIPT), *(w for w in words[1:] if w != "--dry-run")]
    lines = []
    for part in shares:
        told = supervisor.rank_variables(part.threads) | part.variables(gpus)
        lines.append(
            shlex.join(["env", *(f"{name}={told[name]}" for name in sorted(told)), *command])
        )
    return "\n".join(lines)


def run_shares(
    words: Sequence[str], shares: Sequence[SeedShare], gpus: int, saved_in: Path | None
) -> tuple[list[tuple[Path | None, RunRecord]], int]:
    """Make the runs, and wait for all of them.

    Args:
        words: of the command line, from the command's name on.
        shares: of the benchmark; their records are left in a folder of their own.
        gpus: CUDA devices that may be seen.
        saved_in: where records are kept, if they are.

    Returns:
        The records in the order of the runs, each with where it is kept, and the exit status.
    """
    command = [sys.executable, str(SCRIPT), *words[1:]]
    clean = {
        name: os.environ[name] for name in os.environ if name not in supervisor.foreign_variables()
    }
    ended = supervisor.run_each(
        command,
        [clean | supervisor.rank_variables(part.threads) | part.variables(gpus) for part in shares],
    )
    for part, code in zip(shares, ended.codes, strict=True):
        if code < 0:
            print(
                f"mnist-bench: process {part.index + 1} of {part.count} was ended by "
                f"{signal.Signals(-code).name}; the runs it had left are missing",
                file=sys.stderr,
            )
    found = [record for _, record in store.read_records([Path(shares[0].records)]).records]
    done = [(_saved_path(record, saved_in), record) for record in found]
    return sorted(done, key=lambda one: one[1].run_index), _exit_status(ended)


def leave_record(record: RunRecord, part: SeedShare) -> None:
    """Leave a run's record to who started this process."""
    if part.records:
        store.save_record(record, Path(part.records))


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """Where processes leave their records to who started them."""
    return tempfile.TemporaryDirectory(prefix="mnist-bench-")


def _saved_path(record: RunRecord, saved_in: Path | None) -> Path | None:
    if saved_in is None:
        return None
    path = store.record_path(record, saved_in)
    return path if path.exists() else None


def _exit_status(ended: EndedProcesses) -> int:
    if ended.asked or EXIT_INTERRUPTED in ended.codes:
        return EXIT_INTERRUPTED
    return max(EXIT_FAILED if code < 0 else code for code in ended.codes)
