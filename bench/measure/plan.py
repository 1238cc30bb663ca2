"""Decide what a run computes with, from what the user asks for and what this machine has.

The one place that decides device, precision, kernels, threads and ranks. Nothing is set up yet.
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
from bench.measure.request import ComputeRequest
from mnist_cnn.batch_norm import unshared_reason
from mnist_cnn.errors import UsageError, near_match
from mnist_cnn.kernels import build, cluster, native, triton
from mnist_cnn.kernels.native import library
from mnist_cnn.rank import Rank
from mnist_cnn.recipe import DEFAULT_RECIPE, DEVICES, FAST_GPU, Kernels, Precision, Recipe
from mnist_cnn.surroundings import check_all_started, wants_cpu
from mnist_cnn.train import check_batch

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
KERNELS: tuple[Kernels, ...] = get_args(Kernels)

_ISAS_WITHOUT_FAST_BF16 = frozenset(
    ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
)
"""oneDNN's names. AVX2_VNNI_2 converts bf16 but multiplies in fp32."""


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
        UsageError: the name is unknown or the device is absent.
    """
    if asked not in ("auto", *DEVICES):
        raise UsageError(
            f"unknown device {asked!r}{near_match(asked, ('auto', *DEVICES))}; "
            f"there are: auto, {', '.join(sorted(DEVICES))}"
        )
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


def choose_precision(compute: ComputeRequest, recipe: Recipe, device: str) -> Precision:
    """Return the precision of the activations; "auto" is the fastest that the recipe allows.

    Raises:
        UsageError: the name is unknown, or the device does not compute in it.
    """
    asked = compute.precision
    if asked == "auto":
        if recipe.precision != "auto":
            return "fp32"
        # Compiled code for CPUs stores bf16 on all of them, also where it multiplies in fp32.
        compiled = choose_kernels(compute.kernels, device, "bf16", recipe) in native.KINDS
        return "bf16" if compiled or multiplies_bf16_fast(device) else "fp32"
    known = next((precision for precision in PRECISIONS if precision == asked), None)
    if known is None:
        raise UsageError(
            f"unknown precision {asked!r}{near_match(asked, ('auto', *PRECISIONS))}; "
            f"there are: auto, {', '.join(PRECISIONS)}"
        )
    if known == "fp16" and (reason := fp16_unsupported_reason(device)):
        raise UsageError(f"{reason}; use --precision bf16 or fp32")
    if known == "bf16" and not has_bf16(device):
        raise UsageError(f"this {device} device has no bf16; use --precision fp32")
    return known


def fp16_unsupported_reason(device: str) -> str | None:
    """Why a device cannot train in fp16; None where it can."""
    if device == "cpu":
        # torch reports fp16 there and computes in fp32.
        return "fp16 is not computed on a CPU"
    # torch.amp.GradScaler divides in float64 on all devices but MPS, and some XPUs have none.
    if device == "xpu" and not torch.xpu.get_device_capability()["has_fp64"]:
        return "fp16 needs float64 for the scale of its losses, which this xpu device lacks"
    return None


def has_bf16(device: str) -> bool:
    """Whether the device runs bf16 at all."""
    match device:
        case "cuda":
            return bool(torch.cuda.is_bf16_supported())
        case "mps":
            return _macos_major() >= 14
        case _:
            return True


def multiplies_bf16_fast(device: str) -> bool:
    """Whether the hardware multiplies bf16 matrices faster than fp32 ones."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "xpu":
        return bool(torch.xpu.is_bf16_supported(including_emulation=False))
    if device != "cpu":
        return has_bf16(device)
    # Elsewhere bf16 is several times slower than fp32. Two variables may limit a CPU:
    # ATEN_CPU_CAPABILITY bounds torch's loops, ONEDNN_MAX_CPU_ISA the convolutions.
    limited = torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")
    if limited or _onednn_limit() in _ISAS_WITHOUT_FAST_BF16:
        return False
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _onednn_limit() -> str:
    """Newest instruction set that the environment allows oneDNN; "" for any.

    Source: https://oneapi-src.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html
    """
    # oneDNN ignores upper and lower case; DNNL_ is its older name, read where the new one is empty.
    names = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
    return next((value for name in names if (value := os.environ.get(name))), "").upper()


def choose_kernels(asked: str, device: str, precision: Precision, recipe: Recipe) -> Kernels:
    """Return what computes a step; "auto" is the fastest compiled code that is usable, or torch.

    Args:
        asked: one of `KERNELS`, or "auto".
        device: a device type.
        precision: the precision of the matrix products.
        recipe: the recipe to train.

    Raises:
        UsageError: the name is unknown, or the compiled code cannot be used here.
    """

    def unavailable_reason(kernels: Kernels) -> str | None:
        if kernels == "torch":
            return None
        if kernels == "triton":
            return triton_unsupported_reason(device, precision, recipe)
        if kernels == "cluster":
            return cluster_unsupported_reason(device, precision, recipe)
        if kernels == "inductor":
            return unshared_reason(
                recipe, Rank.from_environment().world_size
            ) or compiler_unavailable_reason(device)
        return native_unfit_reason(device, precision, recipe) or native.unavailable_reason(kernels)

    if asked == "auto":
        compiled: tuple[Kernels, ...] = ("triton", *native.FAST_KINDS)
        return next((kind for kind in compiled if not unavailable_reason(kind)), "torch")
    known = next((kernels for kernels in KERNELS if kernels == asked), None)
    if known is None:
        raise UsageError(
            f"unknown kernels {asked!r}{near_match(asked, ('auto', *KERNELS))}; "
            f"there are: auto, {', '.join(KERNELS)}"
        )
    if reason := unavailable_reason(known):
        raise UsageError(f"--kernels {known} cannot be used: {reason}; use --kernels auto")
    return known


def native_unfit_reason(device: str, precision: Precision, recipe: Recipe) -> str | None:
    """Why compiled code cannot train a recipe, whether it was built or not; None where it can."""
    if reason := unshared_reason(recipe, Rank.from_environment().world_size):
        return reason
    if device != "cpu":
        return "it is for CPUs"
    if precision != "bf16":
        return f"it computes in bf16, not {precision}"
    return None


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


def compiler_unavailable_reason(device: str) -> str | None:
    """Why torch's compiler cannot fuse operators on this device; None where it can."""
    if device == "cuda" and find_spec("triton") is None:
        return "the package triton is not installed"
    if device == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        return "there is no C++ compiler"
    return None


def triton_unsupported_reason(device: str, precision: Precision, recipe: Recipe) -> str | None:
    """Why the Triton kernels cannot train a recipe here; None where they can."""
    if precision == "fp16":
        return "it computes in bf16 or fp32, not fp16"
    return (
        _whole_step_unsupported_reason(device, recipe)
        or triton.unsupported_reason(recipe)
        or compiler_unavailable_reason(device)
    )


def cluster_unsupported_reason(device: str, precision: Precision, recipe: Recipe) -> str | None:
    """Why the CUDA kernels cannot train a recipe here; None where they can."""
    if precision != "bf16":
        return f"it computes in bf16, not {precision}"
    return (
        _whole_step_unsupported_reason(device, recipe)
        or cluster.unsupported_reason(recipe)
        or cluster.missing_hardware_reason()
    )


def _whole_step_unsupported_reason(device: str, recipe: Recipe) -> str | None:
    """Why kernels of whole steps on a GPU do not fit, whichever they are; None where they may."""
    if device != "cuda":
        return "it is for CUDA devices"
    if Rank.from_environment().world_size > 1:
        return "it is for one process"
    if recipe.pipeline != "resident":
        return f"it takes resident images, not the {recipe.pipeline}'s"
    return None


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


def _macos_major() -> int:
    return int((platform.mac_ver()[0] or "0").split(".")[0])
