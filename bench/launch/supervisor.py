"""Start the processes of a run and end them together.

Like torchrun, but without its second import of torch (seconds of a cold start), with the exit
status of the ranks, and with files that tell the other ranks which rank ended first and how
(`bench.measure.rank_ends`). The ranks find each other by the environment variables that
torch.distributed and Accelerate read.
Source: https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables
"""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from bench.launch.hosts import HostPlace
from bench.launch.silence import SILENCE_SECONDS, Silences, is_stopped
from bench.machine.cgroups import memory_kills
from bench.measure.guard_folder import (
    VARIABLE,
    fill_folder,
    guard_folder,
    has_begun,
    note_orphaned,
)
from bench.measure.rank_ends import (
    DID_NOT_END,
    MEMORY_RAN_OUT,
    RANKS_NAME,
    STOPPED,
    EndKind,
    report_end,
    reported_ends,
    stopped_ranks,
)
from mnist_cnn.child_processes import end_with_parent
from mnist_cnn.console import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE
from mnist_cnn.process import ENDING_SIGNALS, exit_reason, is_ignored
from mnist_cnn.rank import LOOPBACK, Rank
from mnist_cnn.user_folders import temporary_folder

GRACE_SECONDS = 7.0
"""Seconds from the first failure to SIGTERM for the other ranks: they have records to save."""
SHORT_GRACE_SECONDS = 1.0
"""The same before the first run: they have none."""
KILL_SECONDS = 3.0
"""Seconds from SIGTERM to SIGKILL."""
POLL_SECONDS = 0.05
_OWN_STATUSES = (0, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED)
"""Exit statuses with which a rank has said what there is to say."""
_LONG_POLL_SECONDS = 0.2
"""The same while others measure, whom it must not disturb."""
_ACCELERATE_USER_VARIABLE = "ACCELERATE_USE_CPU"
"""The one variable of Accelerate that a user sets by hand; it chooses the CPU."""


def supervise(
    command: Sequence[str],
    processes: int,
    *,
    threads: int,
    place: HostPlace | None = None,
    unblocks_signals: bool = False,
) -> int:
    """Run a command as several ranks on this machine.

    Args:
        command: the program of every rank; started in the current folder.
        processes: number of ranks on this machine; the same on every machine.
        threads: number of threads of each rank's operators.
        place: place of this machine among several; None for this machine alone.
        unblocks_signals: whether the program unblocks the signals that end it once it can handle
            them; until then they wait.

    Returns:
        0 if all ranks succeed; else the exit status of the lowest rank that failed, 1 where a
        signal ended it.

    Raises:
        UsageError: no temporary folder can be written to.
        OSError: no further process can be started.
    """
    place = place or HostPlace()
    with _ends_folder() as folder:
        (folder / RANKS_NAME).touch()
        shared = {name: os.environ[name] for name in os.environ if name not in foreign_variables()}
        shared |= rank_variables(threads)
        shared |= {
            "MASTER_ADDR": place.host,
            "MASTER_PORT": str(place.port or _free_port()),
            VARIABLE: str(folder),
        }
        first_index = processes * place.rank
        local_ranks = (
            Rank(
                index=first_index + local_index,
                local_index=local_index,
                world_size=processes * place.machines,
                local_world_size=processes,
            )
            for local_index in range(processes)
        )
        environments = [shared | rank.variables() for rank in local_ranks]
        started = _started_processes(command, environments, are_blocked=unblocks_signals)
        with started as (ranks, signals):
            return _wait_for_ranks(ranks, first_index, folder, signals)


@contextmanager
def _ends_folder() -> Iterator[Path]:
    """The folder in which the ranks tell their ends: the guardian's, where there is one."""
    if (folder := guard_folder()) is not None:
        yield folder
        return
    with temporary_folder() as own:
        fill_folder(own)
        yield own


class EndedProcesses(NamedTuple):
    """How processes ended."""

    codes: list[int]
    """Exit code of each process, in order; minus the signal number where a signal ended it."""
    interrupted: bool
    """Whether this process, their parent, received SIGINT or SIGTERM meanwhile."""


def run_each(
    command: Sequence[str],
    environments: Sequence[Mapping[str, str]],
    *,
    stdout: int | None = None,
) -> EndedProcesses:
    """Run a command once in each environment, all at the same time, and wait for all of them.

    The processes are independent: one that fails ends no other. A signal is passed on to them, and
    the wait goes on until they have saved their records. One that is stopped for too long is ended.

    Args:
        command: the program; started in the current folder.
        environments: the variables of each process.
        stdout: as `subprocess.Popen` takes it.
    """
    with _started_processes(command, environments, stdout) as (processes, signals):
        # Asked again and again: a signal just before a call that waits for good would be passed on
        # only when that returns.
        silences = Silences(SILENCE_SECONDS)
        while None in [process.poll() for process in processes]:
            for process in silences.too_long(processes):
                print(f"mnist-bench: error: process {process.pid} {STOPPED}", file=sys.stderr)
                process.kill()
            time.sleep(_LONG_POLL_SECONDS)
        return EndedProcesses([process.returncode for process in processes], bool(signals))


@contextmanager
def _started_processes(
    command: Sequence[str],
    environments: Sequence[Mapping[str, str]],
    stdout: int | None = None,
    *,
    are_blocked: bool = False,
) -> Iterator[tuple[list[subprocess.Popen[bytes]], list[int]]]:
    """Start a process for each environment and pass signals on; kill on exit what still runs.

    A signal that this process was started to ignore stays ignored. One that is passed on may come
    twice: Ctrl-C reaches every process of the terminal without help.

    Yields:
        The processes, and a list that grows with each signal received.
    """
    processes: list[subprocess.Popen[bytes]] = []
    signals: list[int] = []

    own, parent = os.getpid(), os.getppid()

    def pass_on(number: int, _: FrameType | None) -> None:
        signals.append(number)
        if os.getppid() != parent:
            note_orphaned()
        _signal_all(processes, number)

    def prepare() -> None:
        end_with_parent(own)
        if are_blocked:
            signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)

    before = {
        number: signal.signal(number, pass_on)
        for number in ENDING_SIGNALS
        if not is_ignored(number)
    }
    try:
        for environment in environments:
            # Not a comprehension: if one cannot be started, those before it must be ended.
            processes.append(  # noqa: PERF401
                # preexec_fn is safe: no other thread here holds locks that a child inherits.
                subprocess.Popen(
                    command,
                    env=environment,
                    stdout=stdout,
                    preexec_fn=prepare,  # noqa: PLW1509
                )
            )
        for number in signals:  # that came before the last of them was there
            _signal_all(processes, number)
        yield processes, signals
    finally:
        _signal_all(processes, signal.SIGKILL)
        for number, handler in before.items():
            signal.signal(number, handler)


def rank_variables(threads: int) -> dict[str, str]:
    """Variables that are the same for every rank; those that the user has set stay.

    Args:
        threads: number of threads of each rank.
    """
    defaults = {
        "OMP_NUM_THREADS": str(threads),
        # torch's C++ code warns of every network whose addresses have no names.
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }
    return {name: os.environ.get(name, value) for name, value in defaults.items()}


def foreign_variables() -> list[str]:
    """Variables for Accelerate and FSDP that are not passed on: they would change the training."""
    return [
        name
        for name in os.environ
        if name.startswith(("ACCELERATE_", "FSDP_")) and name != _ACCELERATE_USER_VARIABLE
    ]


def _wait_for_ranks(
    ranks: Sequence[subprocess.Popen[bytes]],
    first_index: int,
    folder: Path,
    signals: Sequence[int],
) -> int:
    """Wait until all ranks have ended; end the others some time after one has failed.

    One that is silent for too long is ended as well.

    Args:
        ranks: the ranks of this machine.
        first_index: index of the first of them among the ranks of all machines.
        folder: where their ends are reported.
        signals: signals that this process has received.

    Returns:
        See `supervise`.
    """
    known: set[int] = set()
    memory_kills_before = memory_kills()

    def report(local_index: int, code: int) -> None:
        """Report how a rank has ended, for those that have lost it."""
        kind = EndKind.CAUSE if code < 0 else EndKind.LEFT
        how = exit_reason(code)
        if code == -signal.SIGKILL and memory_kills() > memory_kills_before:
            how += MEMORY_RAN_OUT
        report_end(first_index + local_index, kind, how, folder)

    has_asked = False
    deadline = math.inf
    silences = Silences(SILENCE_SECONDS)
    # A list and not `any`: every rank must be polled, also after the first that is alive.
    while None in [rank.poll() for rank in ranks]:
        for local_index, rank in enumerate(ranks):
            if rank.returncode is None or local_index in known:
                continue
            known.add(local_index)
            if not has_asked:  # later they end because they are asked to
                report(local_index, rank.returncode)
            if rank.returncode != 0:
                grace = GRACE_SECONDS if has_begun(folder) else SHORT_GRACE_SECONDS
                deadline = min(deadline, time.monotonic() + grace)
        if deadline < math.inf:
            _end_stopped(ranks, first_index, folder)
        _end_silent(ranks, first_index, folder, silences)
        if time.monotonic() > deadline:
            _signal_all(ranks, signal.SIGKILL if has_asked else signal.SIGTERM)
            deadline, has_asked = time.monotonic() + KILL_SECONDS, True
        time.sleep(POLL_SECONDS)
    for local_index, rank in enumerate(ranks):
        if local_index not in known and not has_asked:
            report(local_index, rank.returncode)
    codes = [rank.returncode for rank in ranks]
    if not signals and not has_begun(folder):
        said = _unsaid_end(codes, first_index, folder, has_asked)
        if said is not None:
            print(f"mnist-bench: error: {said} before the first run", file=sys.stderr)
            if has_asked:  # the others' status is that of those who were asked to end
                return EXIT_FAILED
    return _exit_status(codes, folder, signals)


def _unsaid_end(
    codes: Sequence[int], first_index: int, folder: Path, has_asked: bool
) -> str | None:
    """Which rank left first and without a word, where the first rank did not say why all end.

    Args:
        codes: of the ranks of this machine.
        first_index: index of the first of them.
        folder: see `_wait_for_ranks`.
        has_asked: whether those that were left have been asked to end, and so say nothing.
    """
    has_said = codes[0] in (EXIT_FAILED, EXIT_USAGE)
    if has_said or not any(codes) or (codes[0] == EXIT_INTERRUPTED and not has_asked):
        return None
    ends = reported_ends(folder)
    explained = {end.rank for end in ends if end.kind != EndKind.LEFT}
    left = [end for end in ends if end.kind == EndKind.LEFT and end.rank not in explained]
    if not left or any(end.kind <= EndKind.CAUSE for end in ends):
        return None
    first = min(left, key=lambda end: end.at)
    if codes[first.rank - first_index]:
        return str(first)
    index, code = next((index, code) for index, code in enumerate(codes) if code)
    return f"{first}, and rank {first_index + index} {exit_reason(code)}"


def _exit_status(codes: Sequence[int], folder: Path, signals: Sequence[int]) -> int:
    """The exit status that the ends of all ranks call for; says what has ended them.

    Args:
        codes: of the ranks of this machine.
        folder: see `_wait_for_ranks`.
        signals: see `_wait_for_ranks`.
    """
    cause = next(iter(reported_ends(folder)), None)
    is_by_signal = any(code < 0 for code in codes)
    # Of one that is silent, a first rank that has waited in vain has said it.
    is_unsaid = cause is not None and (
        cause.kind == EndKind.CAUSE or (cause.kind == EndKind.STOPPED and codes[0] == 0)
    )
    if is_unsaid and is_by_signal and not signals:
        print(f"mnist-bench: {cause}", file=sys.stderr)
    if cause is not None and cause.kind <= EndKind.CAUSE and not signals:
        return EXIT_FAILED  # whatever the others say: they were asked to end
    failed = [code for code in codes if code]
    if signals and any(code < 0 for code in failed):
        return EXIT_INTERRUPTED
    code = next(iter(failed), 0)
    return code if code in _OWN_STATUSES else EXIT_FAILED


def _end_stopped(ranks: Sequence[subprocess.Popen[bytes]], first_index: int, folder: Path) -> None:
    """End ranks that a signal has stopped: they would neither answer nor save anything."""
    for index in stopped_ranks(folder):
        report_end(index, EndKind.STOPPED, STOPPED, folder)
        ranks[index - first_index].kill()


def _end_silent(
    ranks: Sequence[subprocess.Popen[bytes]], first_index: int, folder: Path, silences: Silences
) -> None:
    """End ranks that are stopped, or still here long after rank 0 has done all there is to do."""
    is_over = first_index == 0 and ranks[0].returncode == 0
    for rank in silences.too_long(ranks, [rank.pid for rank in ranks] if is_over else ()):
        what = STOPPED if is_stopped(rank.pid) else DID_NOT_END
        report_end(first_index + ranks.index(rank), EndKind.STOPPED, what, folder)
        rank.kill()


def _signal_all(processes: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind((LOOPBACK, 0))
        return int(listening.getsockname()[1])
