"""`mnist-bench run --processes`: the ranks that this machine starts, or the command for them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.launch import hosts, supervisor
from bench.launch.hosts import HostPlace
from bench.machine.cores import usable_cores
from bench.measure.request import Wish
from mnist_cnn.errors import UsageError
from mnist_cnn.rank import Rank
from mnist_cnn.recipe import Recipe

SCRIPT = Path(__file__).resolve().parents[1] / "run.py"
"""Not `-m bench`: that needs the project on the path, which a plain checkout is not."""
_RANK_OPTIONS = ("--processes", "--machines", "--machine-rank", "--main-address")
_EXPLICIT_OPTIONS = ("--device", "--precision", "--threads")


def check_launched_ranks(wish: Wish) -> None:
    """Refuse other ranks than the launcher started; "auto" takes any.

    Raises:
        UsageError: the options and the launcher contradict each other.
    """
    rank = Rank.from_environment()
    started = str(rank.world_size)
    if wish.processes not in (None, "auto", started):
        raise UsageError(
            f"--processes {wish.processes}, but the launcher started {started}; "
            "leave one of the two out"
        )
    here = rank.local_world_size
    if wish.machines is not None and here * wish.machines != rank.world_size:
        raise UsageError(
            f"--machines {wish.machines}, but the launcher started {here} of {started} processes "
            "here; leave one of the two out"
        )


def plan_ranks(wish: Wish, recipe: Recipe) -> tuple[int | None, HostPlace]:
    """How many ranks this machine is to start, None to be the only one, and its place.

    Raises:
        UsageError: what was asked for contradicts itself or cannot be had.
    """
    place = hosts.parse_host_place(wish.machines, wish.machine_rank, wish.main_address)
    total = _total_ranks(wish, recipe, place.machines)
    if total is None:
        if place != HostPlace():
            raise UsageError("--main-address is for --processes; say how many")
        return None, place
    if total % place.machines:
        raise UsageError(
            f"--processes is the number over all machines, and {total} do not divide among "
            f"{place.machines}; use a multiple of {place.machines}"
        )
    hosts.check_host_place(place)
    here = total // place.machines
    cores = usable_cores()
    if here > cores:
        print(
            f"mnist-bench: warning: {here} processes on {cores} cores wait for each other",
            file=sys.stderr,
        )
    return here, place


def start_ranks(words: Sequence[str], here: int, place: HostPlace, threads: int | None) -> int:
    """Become the supervisor of the same command, run by several ranks.

    Args:
        words: of the command line, from the command's name on.
        here: ranks on this machine.
        place: this machine's.
        threads: of each rank; None for its share of the cores.
    """
    if place.machines > 1:
        print(
            f"mnist-bench: machine {place.rank} of {place.machines} starts {here} of "
            f"{here * place.machines} processes",
            file=sys.stderr,
        )
    command = [sys.executable, str(SCRIPT), *words[1:]]
    return supervisor.supervise(
        command, here, threads=_threads_per_rank(threads, here), place=place
    )


def launch_command(
    words: Sequence[str], wish: Wish, recipe: Recipe, here: int | None, place: HostPlace
) -> str:
    """The command for a shell that starts the same ranks, nothing of it left to defaults.

    Args:
        words: of the command line, from the command's name on.
        wish: what it asked for.
        recipe: what is to be trained.
        here: ranks on this machine; None for one that is not told of others.
        place: this machine's.

    Raises:
        UsageError: what was asked for is not to be had here.
    """
    from bench.measure import plan

    device = plan.choose_device(wish.device)
    plan.check_device_count(device, here or 1, (here or 1) * place.machines)
    threads = plan.choose_threads(_threads_per_rank(wish.threads, here or 1))
    explicit = {
        "--device": device,
        "--precision": plan.choose_precision(wish.precision, recipe, device),
        "--threads": str(threads),
    }
    options = _without_options(words[1:], (*_RANK_OPTIONS, *_EXPLICIT_OPTIONS), ("--dry-run",))
    program = [str(SCRIPT), *options, *(word for pair in explicit.items() for word in pair)]
    environment = [word for name in supervisor.foreign_variables() for word in ("-u", name)]
    starter = [sys.executable]
    if here is not None:
        variables = supervisor.rank_variables(threads)
        if device == "cpu":
            variables["ACCELERATE_USE_CPU"] = "true"
        environment += [f"{name}={value}" for name, value in sorted(variables.items())]
        starter += ["-m", "torch.distributed.run", *_rendezvous(place)]
        starter += ["--nproc_per_node", str(here)]
    return shlex.join([*(["env", *environment] if environment else []), *starter, *program])


def _rendezvous(place: HostPlace) -> list[str]:
    if place == HostPlace():
        return ["--standalone"]
    return [
        *("--nnodes", str(place.machines), "--node_rank", str(place.rank)),
        *("--master_addr", place.host, "--master_port", str(place.port)),
    ]


def _total_ranks(wish: Wish, recipe: Recipe, count: int) -> int | None:
    """Ranks over all machines; None where "auto" finds that this process alone is fastest."""
    if wish.processes is None:
        if count == 1:
            return None
        raise UsageError(
            f"--machines {count} needs --processes: how many over all of them, {count} for one each"
        )
    if wish.processes == "auto":
        if count > 1:
            raise UsageError(
                "--processes auto is for one machine, where it is known what is fastest; say how "
                "many over all"
            )
        # Chosen by what torch finds here; a process alone then goes on with the torch it has.
        from bench.measure.plan import choose_processes

        fastest = choose_processes(recipe, wish.device, wish.precision, wish.threads, wish.kernels)
        return None if fastest == 1 else fastest
    try:
        total = int(wish.processes)
    except ValueError:
        raise UsageError(f"--processes must be a number or auto, not {wish.processes!r}") from None
    if total < 1:
        raise UsageError(f"--processes must be at least 1, not {total}")
    return total


def _threads_per_rank(asked: int | None, here: int) -> int:
    return asked or max(1, usable_cores() // here)


def _without_options(
    words: Sequence[str], valued: Sequence[str], flags: Sequence[str]
) -> list[str]:
    """The words without these options and their values, however they are joined."""
    kept: list[str] = []
    waiting = iter(words)
    for word in waiting:
        if word in valued:
            next(waiting, None)
        elif word not in flags and word.partition("=")[0] not in valued:
            kept.append(word)
    return kept
