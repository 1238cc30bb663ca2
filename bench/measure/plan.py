"""Decide what a run computes with, from what the user asks for and what this machine has.

The one place that decides device, threads and ranks; `kernel_choice` and `precision_choice` decide
the rest. Nothing is set up yet.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from bench.machine.cores import usable_cores
from bench.machine.environment import device_name
from bench.measure.kernel_choice import choose_kernels, native_unfit_reason
from bench.measure.precision_choice import choose_precision
from bench.measure.request import ComputeRequest
from mnist_cnn.errors import UsageError
from mnist_cnn.kernels import build, native
from mnist_cnn.kernels.native import library
from mnist_cnn.rank import Rank
from mnist_cnn.recipe import DEFAULT_RECIPE, DEVICES, FAST_GPU, Kernels, Precision, Recipe
from mnist_cnn.surroundings import check_all_started, wants_cpu
from mnist_cnn.train import check_batch


@dataclass(frozen=True, slots=True)
class ExecutionPlan:
    """What will run here, before anything is set up."""

    recipe: Recipe
    """The recipe as it runs on this device."""
    device: str
    """Device type, as torch names it."""
    precision: Precision
    kernels: Kernels
    """What computes a training step."""
    threads: int
    """Number of threads that compute in each process."""
    processes: int
    """Number of ranks over all machines."""
    capture: bool | None
    """Whether whole steps are recorded as CUDA graphs; None for wherever that is possible."""
    kernels_asked: bool = False
    """Whether the user has asked for these kernels, so that no others may train."""

    def facts(self) -> dict[str, object]:
        """What must be the same on every rank, by names that the user knows."""
        return {
            **{f"recipe.{name}": value for name, value in self.recipe.values().items()},
            "device": self.device,
            "device name": device_name(self.device),
            "precision": self.precision,
            "kernels": self.kernels,
            "threads": self.threads,
            "capture": self.capture,
        }


def resolve_plan(recipe: Recipe, compute: ComputeRequest) -> ExecutionPlan:
    """Turn a request into what this machine can do.

    Raises:
        UsageError: the device is unknown or absent, the precision or the kernels are impossible on
            it, the number of threads or ranks is impossible, or the launcher started another
            number of ranks than it was asked for.
    """
    check_all_started(several_processes_command(2))
    rank = Rank.from_environment()
    device = choose_device(compute.device)
    check_device_count(device, rank.local_world_size, rank.world_size)
    precision = choose_precision(compute, recipe, device)
    threads = choose_threads(compute.threads)
    kernels = choose_kernels(compute.kernels, device, precision, recipe)
    recipe = fit_recipe(recipe, device, kernels)
    check_batch(recipe.batch_size, recipe.train_images, rank.world_size)
    return ExecutionPlan(
        recipe=recipe,
        device=device,
        precision=precision,
        kernels=kernels,
        threads=threads,
        processes=rank.world_size,
        capture=compute.capture,
        kernels_asked=compute.kernels != "auto",
    )


def several_processes_command(processes: int) -> str:
    """A command that starts several processes on a CPU."""
    return (
        f"ACCELERATE_USE_CPU=true torchrun --standalone --nproc_per_node {processes} bench/run.py"
    )


def choose_device(asked: str) -> str:
    """Return a device type that is present; "auto" is the fastest one.

    Raises:
        UsageError: the device is absent.
    """
    if asked == "auto":
        if wants_cpu():
            return "cpu"
        return next(device for device in DEVICES if is_present(device))
    if not is_present(asked):
        present = sorted(device for device in DEVICES if is_present(device))
        raise UsageError(
            f"no {asked} device found by torch {torch.__version__}; present: {', '.join(present)}"
        )
    return asked


def count_visible_gpus(asked: str) -> int:
    """Number of CUDA devices for independent runs, one each; 0 where they train on something else.

    Raises:
        UsageError: the device is absent.
    """
    return torch.cuda.device_count() if choose_device(asked) == "cuda" else 0


def check_device_count(device: str, here: int, processes: int) -> None:
    """Refuse more ranks on this machine than it has devices: each needs one of its own.

    Args:
        device: a device type.
        here: number of ranks on this machine.
        processes: number of ranks on all machines.

    Raises:
        UsageError: says how many devices there are.
    """
    if device == "cpu" or processes == 1:
        return
    if device == "mps":
        raise UsageError("several processes cannot share an MPS device; use --processes 1")
    count = int(torch.get_device_module(device).device_count())
    if here > count:
        raise UsageError(
            f"{here} processes on this machine, which has {count} {device} devices; use one "
            "process a device, or --device cpu"
        )


def choose_recipe(device: str) -> str:
    """Name of the open division's recipe for a device: larger batches except on a CPU.

    Raises:
        UsageError: as `choose_device`.
    """
    return DEFAULT_RECIPE if choose_device(device) == "cpu" else FAST_GPU.name


def is_present(device: str) -> bool:
    """Whether torch finds a device of this type."""
    if device == "cpu":
        return True
    # What torch itself does not have comes with a vendor's package.
    module = getattr(torch, device, None)
    return module is not None and bool(module.is_available())


def unbuilt_reason(plan: ExecutionPlan, compute: ComputeRequest) -> str | None:
    """Why compiled code was not chosen although it fits, where installing it changes that.

    Args:
        plan: what will run here.
        compute: what the user asked for.

    Returns:
        None where it computes, does not fit, was not wanted, or cannot be on this platform.
    """
    if compute.kernels != "auto" or plan.kernels != "torch":
        return None
    if library.LIBRARY.exists() or not build.is_for_this_platform():
        return None
    # With compiled code "auto" would be bf16.
    free = compute.precision == plan.recipe.precision == "auto"
    if native_unfit_reason(plan.device, "bf16" if free else plan.precision, plan.recipe):
        return None
    return native.unavailable_reason()


def unsupported_device(plan: ExecutionPlan, compute: ComputeRequest) -> str | None:
    """Type of a device that torch finds and that cannot train, so that the CPU does; else None."""
    if plan.device != "cpu" or compute.device != "auto" or wants_cpu():
        return None
    found = torch.accelerator.current_accelerator(check_available=True)
    return None if found is None or found.type in DEVICES else found.type


def choose_processes(recipe: Recipe, compute: ComputeRequest) -> int:
    """Return how many processes train fastest on this machine, each its share of every batch.

    Measured on CPUs (docs/speed.md): torch's operators gain from one process a core, compiled code
    has threads that do better. Not measured on several GPUs: one process, because a network this
    small does not keep even one GPU busy.

    Raises:
        UsageError: the machine cannot do what is asked for.
    """
    check_all_started(several_processes_command(2))
    device = choose_device(compute.device)
    precision = choose_precision(compute, recipe, device)
    kernels = choose_kernels(compute.kernels, device, precision, recipe)
    if device != "cpu" or kernels in native.KINDS:
        return 1
    most = usable_cores() // choose_threads(compute.threads or 1)
    return next(n for n in range(max(1, most), 0, -1) if recipe.batch_size % n == 0)


def choose_threads(asked: int | None) -> int:
    """Return the threads of each process: the requested number, or its share of the usable cores.

    Raises:
        UsageError: fewer than one, or more than the machine has cores.
    """
    cores = usable_cores()
    if asked is None:
        return max(1, cores // Rank.from_environment().local_world_size)
    if not 1 <= asked <= cores:
        raise UsageError(f"--threads must be 1 to {cores} on this machine, not {asked}")
    return asked


def fit_recipe(recipe: Recipe, device: str, kernels: Kernels) -> Recipe:
    """The recipe, with the memory layout that the device or the kernels need."""
    # MPS: wrong batch-norm gradients, convolutions 30x slower (pytorch issues 175189 and 193349).
    # Compiled kernels have a layout of their own and read contiguous weights.
    overruled = device == "mps" or kernels in native.KINDS
    return replace(recipe, memory_format="contiguous") if overruled else recipe
