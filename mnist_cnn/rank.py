"""Which of the launched processes this is. The only reader of the launcher's rank variables."""

from __future__ import annotations

import ipaddress
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NoReturn

from mnist_cnn.process import ignore_signals

INDEX_VARIABLES: Final = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""Variables that say which of how many processes this is, over all machines and on this one."""
ADDRESS_VARIABLES: Final = ("MASTER_ADDR", "MASTER_PORT")
"""Variables that say where the processes meet."""
VARIABLES: Final = INDEX_VARIABLES + ADDRESS_VARIABLES
"""A launcher sets all of them.
Source: https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables"""
_STARTED_VARIABLE = "MNIST_BENCH_RANK_STARTED"
"""Set where this project's own supervisor started the rank."""
_LAUNCHER_VARIABLES = (_STARTED_VARIABLE, "TORCHELASTIC_RUN_ID")
"""Each is set by a launcher that starts every rank; `accelerate launch` uses torchrun's."""
_MOST_PROCESSES = 10**6

LOOPBACK = "127.0.0.1"
"""Address at which the ranks of one machine meet: no other machine can reach it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """One process among those that train together; the defaults are those of a process alone."""

    index: int = 0
    """Index of this process over all machines, from 0."""
    local_index: int = 0
    """Index of this process on its machine, from 0."""
    world_size: int = 1
    """Number of processes over all machines."""
    local_world_size: int = 1
    """Number of processes on this machine."""

    @classmethod
    def from_environment(cls) -> Rank:
        """This process, as torchrun, `accelerate launch` or `mnist-bench` describes it.

        A variable that is missing or empty has the value of a process alone. Without
        LOCAL_WORLD_SIZE, all processes are on this machine.

        Raises:
            ValueError: a variable is not a whole number; `variables_problem` explains it.
        """
        world_size = int(os.environ.get("WORLD_SIZE") or 1)
        return cls(
            index=int(os.environ.get("RANK") or 0),
            local_index=int(os.environ.get("LOCAL_RANK") or 0),
            world_size=world_size,
            local_world_size=int(os.environ.get("LOCAL_WORLD_SIZE") or world_size),
        )

    def variables(self) -> dict[str, str]:
        """The environment variables from which a process reads this rank."""
        return {
            "RANK": str(self.index),
            "LOCAL_RANK": str(self.local_index),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_WORLD_SIZE": str(self.local_world_size),
            _STARTED_VARIABLE: "1",
        }

    @property
    def is_main(self) -> bool:
        """Whether this process prints and writes for all."""
        return self.index == 0

    @property
    def is_on_main_machine(self) -> bool:
        """Whether this process is on the machine of rank 0."""
        return self.index == self.local_index

    @property
    def is_first_on_machine(self) -> bool:
        """Whether the supervisor of this machine passes on this process's exit status."""
        return self.local_index == 0


def is_launched() -> bool:
    """Whether a launcher started this process as a rank."""
    return "WORLD_SIZE" in os.environ


def has_launcher() -> bool:
    """Whether a known launcher started this process together with the other ranks.

    Otherwise the rank variables were set by hand, or are left over from something else.
    """
    return any(name in os.environ for name in _LAUNCHER_VARIABLES)


def prints_problems() -> bool:
    """Whether this process prints what is wrong with the input.

    Every rank gets the same input, so one message on each machine is enough. But where no launcher
    started the other ranks, or the rank variables are wrong, nobody else may be there to print it.
    """
    if not has_launcher() or variables_problem() is not None:
        return True
    return Rank.from_environment().is_first_on_machine


def meeting_address() -> tuple[str, int] | None:
    """Host and port at which the ranks meet; None where the launcher names none."""
    host, port = (os.environ.get(name) for name in ADDRESS_VARIABLES)
    return (host, int(port)) if host and port else None


def is_one_machine() -> bool:
    """Whether all ranks are on this machine, as far as the environment says so."""
    address, ranks = os.environ.get("MASTER_ADDR", ""), os.environ.get("WORLD_SIZE")
    if ranks is not None and ranks == os.environ.get("LOCAL_WORLD_SIZE"):
        return True
    try:
        return address == "localhost" or ipaddress.ip_address(address).is_loopback
    except ValueError:  # a name
        return False


def present_variables() -> list[str]:
    """The rank variables that are set."""
    return [name for name in VARIABLES if name in os.environ]


def forget_variables() -> None:
    """Remove the rank variables from this process: it is alone."""
    for name in (*VARIABLES, _STARTED_VARIABLE):
        os.environ.pop(name, None)


def is_alone_without_address() -> bool:
    """Whether the variables describe one process and no place to meet, so that they say nothing."""
    return os.environ.get("WORLD_SIZE") == "1" and not all(
        os.environ.get(name) for name in ADDRESS_VARIABLES
    )


def leftover_hint() -> str:
    """What to do where the rank variables may be left over; empty under a known launcher."""
    if not is_launched() or has_launcher():
        return ""
    rank = Rank.from_environment()
    return (
        f"the variables RANK={rank.index} and WORLD_SIZE={rank.world_size} say so: if they are "
        f"left over, unset {', '.join(present_variables())}"
    )


def variables_problem() -> str | None:
    """What is wrong with the rank variables, naming them; None for a whole and consistent set.

    No variable at all is right too, and so is the address without the others: many clusters set
    it on every machine, and a process alone does not read it.
    """
    indexes = {name: os.environ[name] for name in INDEX_VARIABLES if name in os.environ}
    if not indexes:
        return None
    for name, text in indexes.items():
        if _whole_number(text) is None:
            return f"{name}={text[:40]!r} is no whole number" if text else f"{name} is empty"
    missing = [name for name in ("RANK", "WORLD_SIZE") if name not in indexes]
    if missing:
        return f"{_shown(indexes)} without {' and '.join(missing)}"
    return _inconsistency({name: int(text) for name, text in indexes.items()}) or _incomplete()


def _inconsistency(values: dict[str, int]) -> str | None:
    """Which of the numbers contradict each other."""
    rank, world_size = values["RANK"], values["WORLD_SIZE"]
    local_rank = values.get("LOCAL_RANK", 0)
    local_world_size = values.get("LOCAL_WORLD_SIZE", world_size)
    rules = (
        (world_size >= 1, ("WORLD_SIZE",), "at least 1"),
        (rank < world_size, ("RANK", "WORLD_SIZE"), "RANK is less than WORLD_SIZE"),
        (
            1 <= local_world_size <= world_size,
            ("LOCAL_WORLD_SIZE", "WORLD_SIZE"),
            "LOCAL_WORLD_SIZE is 1 to WORLD_SIZE",
        ),
        (
            local_rank < local_world_size,
            ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "WORLD_SIZE"),
            "LOCAL_RANK is less than LOCAL_WORLD_SIZE",
        ),
        (local_rank <= rank, ("LOCAL_RANK", "RANK"), "LOCAL_RANK is at most RANK"),
    )
    for holds, names, rule in rules:
        if not holds:
            shown = {name: str(values[name]) for name in names if name in values}
            return f"{_shown(shown)} cannot be: {rule}"
    return None


def _incomplete() -> str | None:
    """What several processes lack; an address that is wrong is so for one process too."""
    host, port = (os.environ.get(name) for name in ADDRESS_VARIABLES)
    if port:
        number = _whole_number(port)
        if number is None or not 0 < number < 2**16:
            return f"MASTER_PORT={port[:40]!r} is no port"
    if host and not all(letter.isprintable() and not letter.isspace() for letter in host):
        return f"MASTER_ADDR={host[:40]!r} is no address"
    missing = [name for name in VARIABLES if not os.environ.get(name)]
    if missing and os.environ["WORLD_SIZE"] != "1":
        set_ones = {name: os.environ[name] for name in INDEX_VARIABLES if name in os.environ}
        return f"{_shown(set_ones)} without {', '.join(missing)}"
    return None


def _whole_number(text: str) -> int | None:
    """The number, if it is written with ASCII digits alone and is a possible one."""
    if not (text.isascii() and text.isdigit() and len(text) <= 7):
        return None
    return number if (number := int(text)) <= _MOST_PROCESSES else None


def _shown(values: dict[str, str]) -> str:
    return ", ".join(f"{name}={text}" for name, text in values.items())


def exit_process(status: int) -> NoReturn:
    """End this process; a rank ends without the interpreter's finalization.

    gloo's threads outlive the process group where DistributedDataParallel has used it. One that
    frees a tensor while the interpreter is finalized aborts the process after all its work is done
    ("terminate called without an active exception"; pytorch pull request 179291).
    """
    ignore_signals()
    if is_launched():
        with suppress(OSError, ValueError):  # else as always: Python reports lost output itself
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    sys.exit(status)
