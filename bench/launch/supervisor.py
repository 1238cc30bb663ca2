"""Start the processes of a run and end them together.

Like torchrun, but without its second import of torch (seconds of a cold start), with the exit
status of the ranks, and with a notice to the survivors that says which rank died and how. The ranks
find each other by the variables that torch.distributed and Accelerate read.
Source: https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables
"""

from __future__ import annotations

import ctypes
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
from mnist_cnn.rank import Rank

GRACE_SECONDS = 10.0
"""Seconds that the other ranks may take to end after one has died: they have records to save."""
KILL_SECONDS = 5.0
"""Seconds that processes may take to end after SIGTERM."""
POLL_SECONDS = 0.05
DEATH_NOTICE_VARIABLE = "MNIST_BENCH_OBITUARY"
"""Variable that names the file in which a rank reads which rank died."""
_USER_VARIABLE = "ACCELERATE_USE_CPU"
"""The one variable of Accelerate that a user sets by hand; it chooses the device."""
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
        The exit status of the first rank; where that is 0, the first other status that is not.
    """
    place = place or HostPlace()
    with tempfile.TemporaryDirectory(prefix="mnist-bench-") as folder:
        notice = Path(folder) / "obituary"
        shared = {name: os.environ[name] for name in os.environ if name not in foreign_variables()}
        shared |= rank_variables(threads)
        shared |= {
            "MASTER_ADDR": place.host,
            "MASTER_PORT": str(place.port or _free_port()),
            DEATH_NOTICE_VARIABLE: str(notice),
        }
        first = processes * place.rank
        numbers = (
            Rank(
                index=first + local_index,
                local_index=local_index,
                world_size=processes * place.machines,
                local_world_size=processes,
            )
            for local_index in range(processes)
        )
        environments = [shared | rank.variables() for rank in numbers]
        with _start_process(command, environments) as (ranks, _):
            return _wait_for_end(ranks, first, notice)


class EndedProcesses(NamedTuple):
    """How processes ended."""

    codes: list[int]
    """Exit code of each process, in order; minus the signal number where a signal ended it."""
    asked: bool
    """Whether this process received a signal meanwhile."""


def run_each(
    command: Sequence[str],
    environments: Sequence[Mapping[str, str]],
    *,
    stdout: int | None = None,
) -> EndedProcesses:
    """Run a command once in each environment, all at the same time, and wait for all of them.

    The processes are independent: one that fails ends no other. A signal is passed on to them, and
    this still waits, until they have saved their records.

    Args:
        command: the program; started in the current folder.
        environments: the variables of each process.
        stdout: as `subprocess.Popen` takes it.
    """
    with _start_process(command, environments, stdout) as (processes, signals):
        return EndedProcesses([process.wait() for process in processes], bool(signals))


@contextmanager
def _start_process(
    command: Sequence[str],
    environments: Sequence[Mapping[str, str]],
    stdout: int | None = None,
) -> Iterator[tuple[list[subprocess.Popen[bytes]], list[int]]]:
    """Start a process for each environment, pass signals on, and kill what is left at the end.

    Yields:
        The processes, and the list of signals received since.
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
    """Variables of every rank besides its number; those that the user has set stay.

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
    """Variables of another launcher by which Accelerate would change what is trained."""
    return [n for n in os.environ if n.startswith(("ACCELERATE_", "FSDP_")) and n != _USER_VARIABLE]


def death_notice() -> str | None:
    """Which rank of this run died first and how; None where none did or nobody supervises."""
    path = os.environ.get(DEATH_NOTICE_VARIABLE)
    if path is None:
        return None
    # A survivor may notice before the supervisor does.
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        if Path(path).exists():
            return Path(path).read_text(encoding="utf-8")
        time.sleep(POLL_SECONDS)
    return None


def _wait_for_end(ranks: Sequence[subprocess.Popen[bytes]], first: int, notice: Path) -> int:
    """Wait until all ranks have ended; end the others some time after one has failed."""
    first_bad: int | None = None
    deadline, asked = float("inf"), False
    # A list and not `any`: every rank must be polled, also after the first that is alive.
    while None in [rank.poll() for rank in ranks]:
        for number, rank in enumerate(ranks):
            if first_bad is None and rank.returncode not in (None, 0):
                first_bad = number
                deadline = time.monotonic() + GRACE_SECONDS
                cause = f"rank {first + number} {_exit_reason(rank.returncode)}"
                _write_death_notice(notice, cause)
        if time.monotonic() > deadline:
            _signal_all(ranks, signal.SIGKILL if asked else signal.SIGTERM)
            deadline, asked = time.monotonic() + KILL_SECONDS, True
        time.sleep(POLL_SECONDS)
    statuses = [_exit_status(rank.returncode) for rank in ranks]
    if ranks[0].returncode < 0:
        print(f"mnist-bench: rank {first} {_exit_reason(ranks[0].returncode)}", file=sys.stderr)
    return statuses[0] or next((status for status in statuses if status), 0)


def _write_death_notice(path: Path, text: str) -> None:
    """Write the file whole or not at all: ranks are waiting to read it."""
    draft = path.with_suffix(".draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def _exit_reason(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"


def _exit_status(code: int) -> int:
    return 128 - code if code < 0 else code


def _signal_all(ranks: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for rank in ranks:
        if rank.poll() is None:
            rank.send_signal(number)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _end_with_parent() -> None:
    """In a rank, before its program starts: on Linux, end when the supervisor dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
