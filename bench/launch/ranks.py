"""`mnist-bench run --processes`: the ranks that this machine starts, or the command for them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.launch import hosts, supervisor
from bench.launch.hosts import HostPlace
from bench.machine.cores import usable_cores
from bench.machine.network import check_loopback
from bench.measure.request import ComputeRequest, RankRequest, RunRequest
from mnist_cnn.errors import UsageError
from mnist_cnn.rank import Rank
from mnist_cnn.recipe import Recipe
from mnist_cnn.surroundings import overruled_variables
from mnist_cnn.user_folders import temporary_folder

SCRIPT = Path(__file__).resolve().parents[1] / "run.py"
"""Not `-m bench`: that needs the project on the path, which a plain checkout is not."""
_RANK_OPTIONS = ("--processes", "--machines", "--machine-rank", "--main-address")
_EXPLICIT_OPTIONS = ("--device", "--precision", "--threads")


@dataclass(frozen=True, slots=True)
class RankPlan:
    """The ranks that this machine starts."""

    place: HostPlace
    """Place of this machine among all machines."""
    here: int | None = None
    """Number of ranks to start here; None where this process trains alone."""

    @property
    def total(self) -> int:
        """Number of ranks over all machines."""
        return (self.here or 1) * self.place.machines


def check_launched_ranks(ranks: RankRequest) -> None:
    """Refuse a number of ranks that the launcher did not start; "auto" accepts any.

    Raises:
        UsageError: the options and the launcher contradict each other.
    """
    rank = Rank.from_environment()
    started, here = rank.world_size, rank.local_world_size
    if ranks.processes not in (None, "auto", str(started)):
        raise UsageError(
            f"--processes {ranks.processes}, but the launcher started {started}; "
            "leave one of the two out"
        )
    if ranks.machines is not None and here * ranks.machines != started:
        raise UsageError(
            f"--machines {ranks.machines}, but the launcher started {here} of {started} processes "
            "here; leave one of the two out"
        )


def plan_ranks(request: RunRequest) -> RankPlan:
    """Decide how many ranks this machine starts.

    Raises:
        UsageError: the options contradict each other or are impossible here.
    """
    ranks = request.ranks
    place = hosts.parse_host_place(ranks.machines, ranks.machine_rank, ranks.main_address)
    total = _total_ranks(request, place.machines)
    if total is None:
        if place != HostPlace():
            raise UsageError("--main-address is for --processes; say how many")
        return RankPlan(place)
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
    return RankPlan(place, here)


def start_ranks(request: RunRequest, plan: RankPlan) -> int:
    """Become the supervisor of several ranks that run the same command.

    Returns:
        The exit status.

    Raises:
        UsageError: this system lacks what the ranks need to meet.
    """
    assert plan.here is not None
    place = plan.place
    if place.machines > 1:
        print(
            f"mnist-bench: machine {place.rank} of {place.machines} starts {plan.here} of "
            f"{plan.total} processes",
            file=sys.stderr,
        )
    with temporary_folder():
        pass  # the supervisor needs one
    check_loopback()
    command = [sys.executable, str(SCRIPT), *request.command[1:]]
    threads = _threads_per_rank(request.compute, plan)
    return supervisor.supervise(
        command, plan.here, threads=threads, place=place, unblocks_signals=True
    )


def launch_command(request: RunRequest, plan: RankPlan) -> str:
    """A shell command that starts the same ranks and leaves nothing to defaults.

    Raises:
        UsageError: the request is impossible here.
    """
    from bench.measure.plan import check_device_count, choose_device, choose_threads
    from bench.measure.precision_choice import choose_precision
    from mnist_cnn.batch_norm import unshared_reason

    device = choose_device(request.compute.device)
    check_device_count(device, plan.here or 1, plan.total)
    threads = choose_threads(_threads_per_rank(request.compute, plan))
    compute = request.compute
    if compute.kernels == "auto" and unshared_reason(request.recipe, plan.total):
        compute = replace(compute, kernels="torch")  # what "auto" is in the ranks
    explicit = {
        "--device": device,
        "--precision": choose_precision(compute, request.recipe, device),
        "--threads": str(threads),
    }
    replaced = (*_RANK_OPTIONS, *_EXPLICIT_OPTIONS)
    options = _without_options(request.command[1:], replaced, ("--dry-run",))
    program = [str(SCRIPT), *options, *(word for pair in explicit.items() for word in pair)]
    foreign = sorted({*supervisor.foreign_variables(), *overruled_variables()})
    environment = [word for name in foreign for word in ("-u", name)]
    starter = [sys.executable]
    if plan.here is not None:
        variables = supervisor.rank_variables(threads)
        if device == "cpu":
            variables["ACCELERATE_USE_CPU"] = "true"
        environment += [f"{name}={value}" for name, value in sorted(variables.items())]
        starter += ["-m", "torch.distributed.run", *_rendezvous(plan.place)]
        starter += ["--nproc_per_node", str(plan.here)]
    return shlex.join([*(["env", *environment] if environment else []), *starter, *program])


def _rendezvous(place: HostPlace) -> list[str]:
    if place == HostPlace():
        return ["--standalone"]
    return [
        *("--nnodes", str(place.machines), "--node_rank", str(place.rank)),
        *("--master_addr", place.host, "--master_port", str(place.port)),
    ]


def _total_ranks(request: RunRequest, machines: int) -> int | None:
    """Number of ranks over all machines; None where this process alone is the fastest."""
    processes = request.ranks.processes
    if processes is None:
        if machines == 1:
            return None
        raise UsageError(
            f"--machines {machines} needs --processes: how many over all of them, {machines} for "
            "one each"
        )
    if processes == "auto":
        if machines > 1:
            raise UsageError(
                "--processes auto is for one machine, where it is known what is fastest; say how "
                "many over all"
            )
        return _fastest_ranks(request.recipe, request.compute)
    return int(processes)


def _fastest_ranks(recipe: Recipe, compute: ComputeRequest) -> int | None:
    # Lazy: torch is slow to import. A process that trains alone uses it afterwards.
    from bench.measure.plan import choose_processes

    fastest = choose_processes(recipe, compute)
    return None if fastest == 1 else fastest


def _threads_per_rank(compute: ComputeRequest, plan: RankPlan) -> int:
    return compute.threads or max(1, usable_cores() // (plan.here or 1))


def _without_options(
    words: Sequence[str], valued: Sequence[str], flags: Sequence[str]
) -> list[str]:
    """The words without these options and their values, whether joined by "=" or not."""
    kept: list[str] = []
    remaining = iter(words)
    for word in remaining:
        if word in valued:
            next(remaining, None)
        elif word not in flags and word.partition("=")[0] not in valued:
            kept.append(word)
    return kept
