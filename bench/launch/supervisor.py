"""Start the processes of a run and end them together.

Like torchrun, but without its second import of torch (seconds of a cold start), with the exit
status of the ranks, and with a file that tells the other ranks which rank failed first and how. The
ranks find each other by the environment variables that torch.distributed and Accelerate read.
Source: https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from bench.launch.hosts import HostPlace
from mnist_cnn.disk import replace_file
from mnist_cnn.rank import LOOPBACK, Rank

GRACE_SECONDS = 10.0
"""Seconds from the first failure to SIGTERM for the other ranks: they have records to save."""
KILL_SECONDS = 5.0
"""Seconds from SIGTERM to SIGKILL."""
POLL_SECONDS = 0.05
FAILURE_FILE_VARIABLE = "MNIST_BENCH_FAILURE_FILE"
"""Variable that names the file in which a rank reads which rank failed first."""
_ACCELERATE_USER_VARIABLE = "ACCELERATE_USE_CPU"
"""The one variable of Accelerate that a user sets by hand; it chooses the CPU."""
_PR_SET_PDEATHSIG = 1


def supervise(
    command: Sequence[str], processes: int, *, threads: int, place: HostPlace | None = None
) -> int:
    """Run a command as several ranks on this machine.

    Args:
        command: the program of every rank; started in the current folder.
        processes: number of ranks on this machine; the same on every machine.
        threads: number of threads of each rank's operators.
        place: place of this machine among several; None for this machine alone.

    Returns:
        0 if all ranks succeed; else the exit status of the lowest rank that failed.
    """
    place = place or HostPlace()
    with tempfile.TemporaryDirectory(prefix="mnist-bench-") as folder:
        failure_file = Path(folder) / "first_failure"
        shared = {name: os.environ[name] for name in os.environ if name not in foreign_variables()}
        shared |= rank_variables(threads)
        shared |= {
            "MASTER_ADDR": place.host,
            "MASTER_PORT": str(place.port or _free_port()),
            FAILURE_FILE_VARIABLE: str(failure_file),
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
        with _started_processes(command, environments) as (ranks, _):
            return _wait_for_ranks(ranks, first_index, failure_file)


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
    the wait goes on until they have saved their records.

    Args:
        command: the program; started in the current folder.
        environments: the variables of each process.
        stdout: as `subprocess.Popen` takes it.
    """
    with _started_processes(command, environments, stdout) as (processes, signals):
        return EndedProcesses([process.wait() for process in processes], bool(signals))


@contextmanager
def _started_processes(
    command: Sequence[str],
    environments: Sequence[Mapping[str, str]],
    stdout: int | None = None,
) -> Iterator[tuple[list[subprocess.Popen[bytes]], list[int]]]:
    """Start a process for each environment and pass signals on; kill on exit what still runs.

    Yields:
        The processes, and a list that grows with each signal received.
    """
    processes: list[subprocess.Popen[bytes]] = []
    signals: list[int] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        signals.append(number)
        # Ctrl-C reaches every process of the terminal without help.
        if number != signal.SIGINT:
            _signal_all(processes, number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for environment in environments:
            # Not a comprehension: if one cannot be started, those before it must be ended.
            processes.append(  # noqa: PERF401
                # preexec_fn is safe: no other thread here holds locks that a child inherits.
                subprocess.Popen(
                    command,
                    env=environment,
                    stdout=stdout,
                    preexec_fn=_end_with_parent,  # noqa: PLW1509
                )
            )
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


def first_failure() -> str | None:
    """Which rank on this machine failed first and how; None if none did or without a supervisor."""
    path = os.environ.get(FAILURE_FILE_VARIABLE)
    if path is None:
        return None
    # This rank may see the failure (a lost connection) before the supervisor has written the file.
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        if Path(path).exists():
            return Path(path).read_text(encoding="utf-8")
        time.sleep(POLL_SECONDS)
    return None


def _wait_for_ranks(
    ranks: Sequence[subprocess.Popen[bytes]], first_index: int, failure_file: Path
) -> int:
    """Wait until all ranks have ended; end the others some time after one has failed.

    Args:
        ranks: the ranks of this machine.
        first_index: index of the first of them among the ranks of all machines.
        failure_file: file to tell the others in which rank failed first.

    Returns:
        See `supervise`.
    """
    failure_written = terminated = False
    deadline = math.inf
    # A list and not `any`: every rank must be polled, also after the first that is alive.
    while None in [rank.poll() for rank in ranks]:
        for local_index, rank in enumerate(ranks):
            if not failure_written and rank.returncode not in (None, 0):
                failure_written = True
                deadline = time.monotonic() + GRACE_SECONDS
                cause = f"rank {first_index + local_index} {_exit_reason(rank.returncode)}"
                replace_file(failure_file, cause.encode())
        if time.monotonic() > deadline:
            _signal_all(ranks, signal.SIGKILL if terminated else signal.SIGTERM)
            deadline, terminated = time.monotonic() + KILL_SECONDS, True
        time.sleep(POLL_SECONDS)
    statuses = [_exit_status(rank.returncode) for rank in ranks]
    if ranks[0].returncode < 0:
        reason = _exit_reason(ranks[0].returncode)
        print(f"mnist-bench: rank {first_index} {reason}", file=sys.stderr)
    return statuses[0] or next((status for status in statuses if status), 0)


def _exit_reason(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"


def _exit_status(code: int) -> int:
    return 128 - code if code < 0 else code


def _signal_all(processes: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind((LOOPBACK, 0))
        return int(listening.getsockname()[1])


def _end_with_parent() -> None:
    """In a new process, before its program starts: on Linux, end it when the supervisor dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
