"""Starts the processes of a run, and sees to it that they end together.

What torchrun does, without its second import of torch (seconds of a cold start),
with the ranks' own exit status, and with a word to the survivors on who died and how. The ranks
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
"""How long the others may take to end by themselves once one has: they have records to save."""
KILL_SECONDS = 5.0
"""How long they may take once they were asked to."""
POLL_SECONDS = 0.05
DEATH_NOTICE_VARIABLE = "MNIST_BENCH_OBITUARY"
"""Variable that names the file in which ranks read who died."""
_ASKED_FOR = "ACCELERATE_USE_CPU"
"""The one variable of Accelerate's that a user sets by hand; it chooses the device."""
_PR_SET_PDEATHSIG = 1


def supervise(
    command: Sequence[str], processes: int, *, threads: int, place: HostPlace | None = None
) -> int:
    """Run `command` as so many ranks on this machine.

    Args:
        command: started in this folder, once a rank.
        processes: how many; on every machine as many.
        threads: of each rank's operators, as torch is to find them when it starts.
        place: this machine's among several.

    Returns:
        The exit status: the first rank's, or where that is 0 the first other that is not.
    """
    place = place or HostPlace()
    with tempfile.TemporaryDirectory(prefix="mnist-bench-") as folder:
        obituary = Path(folder) / "obituary"
        shared = {name: os.environ[name] for name in os.environ if name not in foreign_variables()}
        shared |= rank_variables(threads)
        shared |= {
            "MASTER_ADDR": place.host,
            "MASTER_PORT": str(place.port or _free_port()),
            DEATH_NOTICE_VARIABLE: str(obituary),
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
            return _wait_for_end(ranks, first, obituary)


class EndedProcesses(NamedTuple):
    """How processes ended that were waited for."""

    codes: list[int]
    """Their exit codes, in order; of one that a signal ended, its number below 0."""
    asked: bool
    """Whether somebody wanted this process to end meanwhile, whatever they made of it."""


def run_each(
    command: Sequence[str],
    environments: Sequence[Mapping[str, str]],
    *,
    stdout: int | None = None,
) -> EndedProcesses:
    """Run `command` once in each of these environments, at the same time, to the end of the last.

    They know nothing of each other: one that ends badly ends no other. A signal ends them, and this
    waits until they have left their records.

    Args:
        command: started in this folder.
        environments: one a process.
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
    """A process for each environment; signals reach them, and none of them outlives this.

    Yields:
        They, and the signals that have come since.
    """
    processes: list[subprocess.Popen[bytes]] = []
    signals: list[int] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        signals.append(number)
        # Ctrl-C reaches every process of the terminal by itself.
        if number != signal.SIGINT:
            _signal_all(processes, number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for environment in environments:
            # One by one: where one cannot be started, those before it are to be ended.
            processes.append(  # noqa: PERF401
                # Nothing computes in other threads here, whose locks a child could be left with.
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
    """What every rank is told besides its number, unless the user has said otherwise.

    Args:
        threads: of each rank.
    """
    wanted = {
        "OMP_NUM_THREADS": str(threads),
        # Of the C++ within torch, which warns of every network whose addresses have no names.
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }
    return {name: os.environ.get(name, value) for name, value in wanted.items()}


def foreign_variables() -> list[str]:
    """Variables here by which Accelerate would change what is trained: another launcher's."""
    return [n for n in os.environ if n.startswith(("ACCELERATE_", "FSDP_")) and n != _ASKED_FOR]


def death_notice() -> str | None:
    """Who of this run's ranks died and how, or None where none did or nobody watches."""
    path = os.environ.get(DEATH_NOTICE_VARIABLE)
    if path is None:
        return None
    end = time.monotonic() + 1.0  # the survivors may notice before the supervisor does
    while time.monotonic() < end:
        if Path(path).exists():
            return Path(path).read_text(encoding="utf-8")
        time.sleep(POLL_SECONDS)
    return None


def _wait_for_end(ranks: Sequence[subprocess.Popen[bytes]], first: int, obituary: Path) -> int:
    """Until all have ended; once one ended badly the others have not for ever."""
    first_bad: int | None = None
    deadline, asked = float("inf"), False
    # A list, for every one is to be looked at, also after the first that is alive.
    while None in [rank.poll() for rank in ranks]:
        for number, rank in enumerate(ranks):
            if first_bad is None and rank.returncode not in (None, 0):
                first_bad = number
                deadline = time.monotonic() + GRACE_SECONDS
                _write_death_notice(
                    obituary, f"rank {first + number} {_exit_reason(rank.returncode)}"
                )
        if time.monotonic() > deadline:
            _signal_all(ranks, signal.SIGKILL if asked else signal.SIGTERM)
            deadline, asked = time.monotonic() + KILL_SECONDS, True
        time.sleep(POLL_SECONDS)
    statuses = [_exit_status(rank.returncode) for rank in ranks]
    if ranks[0].returncode < 0:
        print(f"mnist-bench: rank {first} {_exit_reason(ranks[0].returncode)}", file=sys.stderr)
    return statuses[0] or next((status for status in statuses if status), 0)


def _write_death_notice(path: Path, text: str) -> None:
    """Whole or not at all, for somebody is waiting to read it."""
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
    """In a rank, before its program: on Linux, ask to be ended when the supervisor is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
