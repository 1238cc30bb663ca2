"""What a run is going to be, from what the user asked for and what this machine has.

The one place that decides device, precision, kernels, threads and ranks; nothing is set up yet.
"""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import get_args

import torch

from bench.machine.cores import usable_cores
from bench.machine.environment import device_name
from mnist_cnn.errors import UsageError, near_match
from mnist_cnn.kernels import native, triton
from mnist_cnn.rank import Rank, is_launched
from mnist_cnn.recipe import DEFAULT_RECIPE, FAST_GPU, Kernels, Precision, Recipe
from mnist_cnn.train import check_batch

DEVICES = ("cpu", "cuda", "mps", "xpu")
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
KERNELS: tuple[Kernels, ...] = get_args(Kernels)


@dataclass(frozen=True, slots=True)
class ExecutionPlan:
    """What will run here, before anything of it is set up."""

    recipe: Recipe
    """As it will run on this device."""
    device: str
    precision: Precision
    kernels: Kernels
    threads: int
    """That compute, of each process."""
    processes: int
    """Over all machines."""

    def facts(self) -> dict[str, object]:
        """What must be the same on every rank, by the names that a user knows."""
        return {
            **{f"recipe.{name}": value for name, value in self.recipe.values().items()},
            "device": self.device,
            "device name": device_name(self.device),
            "precision": self.precision,
            "kernels": self.kernels,
            "threads": self.threads,
        }


def resolve_plan(
    recipe: Recipe,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    kernels: str = "auto",
) -> ExecutionPlan:
    """What was asked for as it can be had on this machine.

    Args:
        recipe: what will be trained.
        device: a device type, or "auto" for the fastest present.
        precision: fp32, bf16, fp16, or "auto" for the recipe's wish.
        threads: of each process's operators; None for its share of the cores.
        kernels: torch, inductor, avx512, amx, or "auto" for the fastest that this machine has.

    Raises:
        UsageError: unknown or absent device, impossible precision, kernels, thread or rank counts,
            or a launch that started other ranks than it was told to.
    """
    refuse_silent_single_process()
    rank = Rank.from_environment()
    processes = rank.world_size
    device = choose_device(device)
    check_device_count(device, rank.local_world_size, processes)
    effective = choose_precision(precision, recipe, device)
    threads = choose_threads(threads)
    computed_by = choose_kernels(kernels, device, effective, recipe)
    recipe = fit_recipe(recipe, device, computed_by)
    check_batch(recipe.batch_size, recipe.train_images, processes)
    return ExecutionPlan(recipe, device, effective, computed_by, threads, processes)


def refuse_silent_single_process() -> None:
    """Refuse `accelerate launch --cpu --num_processes N`, which starts one process, silently.

    Raises:
        UsageError: with the command that does start N.
    """
    environment = os.environ
    cpu = environment.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    if cpu and "MASTER_PORT" in environment and not is_launched():
        raise UsageError(
            "accelerate launch --cpu started one process although several were asked for; "
            f"for two use: {several_processes_command(2)}"
        )


def several_processes_command(processes: int) -> str:
    """The launch that truly starts several processes on a CPU."""
    return (
        f"ACCELERATE_USE_CPU=true torchrun --standalone --nproc_per_node {processes} bench/run.py"
    )


def choose_device(asked: str) -> str:
    """A device type that is present here; "auto" is the fastest of those.

    Raises:
        UsageError: the name is unknown or the device is not there.
    """
    if asked not in ("auto", *DEVICES):
        raise UsageError(
            f"unknown device {asked!r}{near_match(asked, ('auto', *DEVICES))}; "
            f"there are: auto, {', '.join(DEVICES)}"
        )
    if asked == "auto":
        if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
            return "cpu"
        return next(device for device in ("cuda", "mps", "xpu", "cpu") if is_present(device))
    if not is_present(asked):
        present = [device for device in DEVICES if is_present(device)]
        raise UsageError(
            f"no {asked} device found by torch {torch.__version__}; present: {', '.join(present)}"
        )
    return asked


def count_visible_gpus(asked: str) -> int:
    """CUDA devices that independent runs may be given one each of; 0 where they train elsewhere.

    Raises:
        UsageError: the device asked for is not there.
    """
    return torch.cuda.device_count() if choose_device(asked) == "cuda" else 0


def check_device_count(device: str, here: int, processes: int) -> None:
    """Refuse more ranks on this machine than it has devices: each has one of its own.

    Args:
        device: a device type.
        here: ranks on this machine.
        processes: ranks on all.

    Raises:
        UsageError: with how many there are.
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
    """The name of the open division's recipe for a device: larger batches where it is no CPU.

    Raises:
        UsageError: as `choose_device`.
    """
    return DEFAULT_RECIPE if choose_device(device) == "cpu" else FAST_GPU.name


def is_present(device: str) -> bool:
    """Whether torch finds a device of this type."""
    if device == "cpu":
        return True
    module = torch.get_device_module(device)
    return bool(module.is_available())


def choose_precision(asked: str, recipe: Recipe, device: str) -> Precision:
    """The precision to multiply in; "auto" is the recipe's wish.

    Raises:
        UsageError: unknown, or not to be had on this device.
    """
    if asked == "auto":
        return "bf16" if recipe.precision == "auto" and multiplies_bf16_fast(device) else "fp32"
    known = next((precision for precision in PRECISIONS if precision == asked), None)
    if known is None:
        raise UsageError(
            f"unknown precision {asked!r}{near_match(asked, ('auto', *PRECISIONS))}; "
            f"there are: auto, {', '.join(PRECISIONS)}"
        )
    if known == "fp16" and device == "cpu":
        # torch reports fp16 there and computes in fp32.
        raise UsageError("fp16 is not computed on a CPU; use --precision bf16 or fp32")
    if known == "bf16" and not has_bf16(device):
        raise UsageError(f"this {device} device has no bf16; use --precision fp32")
    return known


def has_bf16(device: str) -> bool:
    """Whether bf16 runs at all."""
    match device:
        case "cuda":
            return bool(torch.cuda.is_bf16_supported())
        case "mps":
            return _macos_major() >= 14
        case _:
            return True


def multiplies_bf16_fast(device: str) -> bool:
    """Whether bf16 matrix products are faster than fp32 ones: the hardware has instructions."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device != "cpu":
        return has_bf16(device)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def choose_kernels(asked: str, device: str, precision: Precision, recipe: Recipe) -> Kernels:
    """What will compute a step; "auto" is the fastest compiled code that can, or torch.

    Args:
        asked: one of `KERNELS`, or "auto".
        device: a device type.
        precision: that it multiplies in.
        recipe: what will be trained.

    Raises:
        UsageError: unknown, or compiled code was asked for where it cannot be used.
    """

    def obstacle(kernels: Kernels) -> str | None:
        if kernels == "torch":
            return None
        if kernels == "inductor":
            return compiler_unavailable_reason(device)
        if kernels == "triton":
            return triton_unsupported_reason(device, precision, recipe)
        if device != "cpu":
            return "it is for CPUs"
        if precision != "bf16":
            return f"it computes in bf16, not {precision}"
        return native.unavailable_reason(kernels)

    if asked == "auto":
        compiled: tuple[Kernels, ...] = ("triton", *native.KINDS)
        return next((kind for kind in compiled if not obstacle(kind)), "torch")
    known = next((kernels for kernels in KERNELS if kernels == asked), None)
    if known is None:
        raise UsageError(
            f"unknown kernels {asked!r}{near_match(asked, ('auto', *KERNELS))}; "
            f"there are: auto, {', '.join(KERNELS)}"
        )
    if reason := obstacle(known):
        raise UsageError(f"--kernels {known} cannot be used: {reason}; use --kernels auto")
    return known


def compiler_unavailable_reason(device: str) -> str | None:
    """Why torch's compiler cannot fuse operators for this device; None where it can."""
    if device == "cuda" and find_spec("triton") is None:
        return "the package triton is not installed"
    if device == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        return "there is no C++ compiler"
    return None


def triton_unsupported_reason(device: str, precision: Precision, recipe: Recipe) -> str | None:
    """Why the Triton kernels cannot train a recipe here; None where they can."""
    if device != "cuda":
        return "it is for CUDA devices"
    if precision == "fp16":
        return "it computes in bf16 or fp32, not fp16"
    if Rank.from_environment().world_size > 1:
        return "it is for one process"
    if recipe.pipeline != "resident":
        return f"it takes resident images, not the {recipe.pipeline}'s"
    return triton.unsupported_reason(recipe) or compiler_unavailable_reason(device)


def choose_processes(
    recipe: Recipe, device: str, precision: str, threads: int | None, kernels: str
) -> int:
    """How many processes train fastest on this machine, each its share of every batch.

    Measured on CPUs (docs/speed.md): torch's operators gain from one process a core, compiled code
    has threads that do better. Not measured on several GPUs: one, which a network this small leaves
    waiting as it is.

    Args:
        recipe: what will be trained.
        device: as asked for.
        precision: as asked for.
        threads: of each process, if they were asked for.
        kernels: as asked for.

    Raises:
        UsageError: what was asked for is not to be had here.
    """
    refuse_silent_single_process()
    device = choose_device(device)
    chosen = choose_precision(precision, recipe, device)
    computed_by = choose_kernels(kernels, device, chosen, recipe)
    if device != "cpu" or computed_by in native.KINDS:
        return 1
    most = usable_cores() // choose_threads(threads or 1)
    return next(n for n in range(max(1, most), 0, -1) if recipe.batch_size % n == 0)


def choose_threads(asked: int | None) -> int:
    """Threads of each process's operators: those asked for, or its share of the usable cores.

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
    """The recipe with the one choice a device may overrule: how activations lie in memory."""
    # MPS: wrong batch-norm gradients, convolutions 30x slower (pytorch issues 175189 and 193349).
    # Compiled kernels have a layout of their own and read contiguous weights.
    overruled = device == "mps" or kernels in native.KINDS
    return replace(recipe, memory_format="contiguous") if overruled else recipe


def _macos_major() -> int:
    return int((platform.mac_ver()[0] or "0").split(".")[0])
