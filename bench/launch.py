"""From what the user asked for to an `Accelerator` that truly is that, or one clear line.

The one place that decides device, precision, threads and ranks; the training loop takes them as
they come. Source of the traps refused here: shared facts on Accelerate 1.15, each measured.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import torch
from accelerate import Accelerator
from accelerate.commands.config.config_args import default_config_file
from accelerate.utils import DistributedType

from bench.environment import device_name, shortened, usable_cores
from bench.machines import interface
from bench.records import ParityCheck, Setup
from mnist_cnn import fused, native, static
from mnist_cnn.data import load
from mnist_cnn.errors import UsageError, near_match
from mnist_cnn.parity import parity
from mnist_cnn.ranks import process_group
from mnist_cnn.recipe import DEFAULT_RECIPE, FAST_GPU, Kernels, Precision, Recipe
from mnist_cnn.train import check_batch

DEVICES = ("cpu", "cuda", "mps", "xpu")
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
KERNELS: tuple[Kernels, ...] = get_args(Kernels)

PLAIN_DISTRIBUTION = (
    DistributedType.NO,
    DistributedType.MULTI_CPU,
    DistributedType.MULTI_GPU,
    DistributedType.MULTI_XPU,
)
"""Ways of joining ranks that leave the recipe as it is: no FSDP, no DeepSpeed, no Megatron."""

RECORDED_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "KMP_AFFINITY",
    "KMP_BLOCKTIME",
    "OMP_PROC_BIND",
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
    "OMP_PLACES",
    "GOMP_CPU_AFFINITY",
    "LD_PRELOAD",
    "MALLOC_ARENA_MAX",
    "GLIBC_TUNABLES",
    "ONEDNN_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
    "GLOO_SOCKET_IFNAME",
    "NCCL_SOCKET_IFNAME",
    "NCCL_IB_DISABLE",
    "NCCL_P2P_DISABLE",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_LAUNCH_BLOCKING",
    "NVIDIA_TF32_OVERRIDE",
    "PYTORCH_ENABLE_MPS_FALLBACK",
    "TORCHINDUCTOR_LAYOUT_OPTIMIZATION",
)


@dataclass(frozen=True, slots=True)
class Chosen:
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


def launch(
    recipe: Recipe,
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    kernels: str = "auto",
    capture: bool | None = None,
) -> tuple[Accelerator, Recipe, Setup]:
    """`choose` and `join` in one, where nobody else is to agree; arguments and errors as theirs."""
    chosen = choose(recipe, device, precision, threads, kernels)
    return join(chosen, capture=capture)


def choose(
    recipe: Recipe,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    kernels: str = "auto",
) -> Chosen:
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
    processes = int(os.environ.get("WORLD_SIZE") or 1)
    device = choose_device(device)
    check_device_count(device, int(os.environ.get("LOCAL_WORLD_SIZE") or processes), processes)
    effective = choose_precision(precision, recipe, device)
    threads = choose_threads(threads)
    computed_by = choose_kernels(kernels, device, effective, recipe)
    recipe = fitted(recipe, device, computed_by)
    check_batch(recipe.batch_size, recipe.train_images, processes)
    return Chosen(recipe, device, effective, computed_by, threads, processes)


def join(
    chosen: Chosen, *, capture: bool | None = None, machines: int = 1
) -> tuple[Accelerator, Recipe, Setup]:
    """The accelerator that truly is what was chosen, the recipe, and what that set-up is.

    Args:
        chosen: the same on every rank, which all call this.
        capture: whether the device is to record whole steps; None: where it can.
        machines: that the ranks are on.

    Raises:
        UsageError: Accelerate made something else of it, or steps cannot be recorded.
    """
    # Explicit: with a dynamo backend Accelerate would turn TF32 on, and cuDNN's is on by default.
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    if machines > 1:
        _name_the_interface()
    keep_layout(chosen.device, chosen.kernels)
    # Accelerate writes to the environment too: what it writes was not the user's.
    variables = _variables()
    accelerator = Accelerator(
        cpu=chosen.device == "cpu",
        mixed_precision="no" if chosen.precision == "fp32" else chosen.precision,
        dynamo_backend="no",
        kwargs_handlers=[process_group()],
    )
    # Last: where OMP_NUM_THREADS is not set, Accelerate has chosen a number of its own.
    # Compiled code has threads of its own; torch's would wait for work on the same cores.
    torch.set_num_threads(1 if chosen.kernels in native.KINDS else chosen.threads)
    if chosen.kernels in native.KINDS:
        native.set_threads(chosen.threads)
    if accelerator.num_processes != chosen.processes or accelerator.device.type != chosen.device:
        raise UsageError(
            f"asked for {chosen.processes} processes on {chosen.device}, got "
            f"{accelerator.num_processes} on {accelerator.device.type}; for several processes on a "
            f"CPU use: {several_processes_command(chosen.processes)}"
        )
    if (
        accelerator.distributed_type not in PLAIN_DISTRIBUTION
        or accelerator.gradient_accumulation_steps != 1
    ):
        raise UsageError(
            f"the Accelerate configuration asks for {accelerator.distributed_type.value} and "
            f"{accelerator.gradient_accumulation_steps} steps of gradient accumulation, which "
            "would change the recipe; start without it: python -m bench.run"
        )
    described = _describe(accelerator, chosen, machines, variables)
    captured, reason = choose_capture(capture, chosen.recipe, accelerator)
    described = described.model_copy(update={"captured": captured, "uncaptured_reason": reason})
    return accelerator, chosen.recipe, described


@contextmanager
def usable_device() -> Iterator[None]:
    """Around the first work given to a device: what it cannot do then is no fault of a run's.

    Raises:
        UsageError: its driver or its memory refused.
    """
    try:
        yield
    except (torch.OutOfMemoryError, torch.AcceleratorError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"the device cannot be used: {first_line}; see what else is on it, or name another "
            "with --device"
        ) from error


def check_parity(
    recipe: Recipe, accelerator: Accelerator, data_dir: Path | None, setup: Setup
) -> ParityCheck | None:
    """See that what is about to be timed computes what the CPU does.

    Raises:
        UsageError: it does not; how fast it is would mean nothing.
    """
    data = load(data_dir, offline=True).split(recipe.evaluation_split)
    found = parity(recipe, accelerator, data, setup.precision, setup.kernels)
    if found is None:
        return None
    if found.problem is not None:
        if setup.device != "cpu":
            other = "--precision fp32 or --device cpu"
        else:
            other = "--kernels torch" if setup.kernels in native.KINDS else "--precision fp32"
        raise UsageError(
            f"{setup.computed_by} in {setup.precision} on {setup.device} does not compute this "
            f"network: {found.problem}; use {other}"
        )
    return ParityCheck(**asdict(found))


def refuse_silent_single_process() -> None:
    """Refuse `accelerate launch --cpu --num_processes N`, which starts one process, silently.

    Raises:
        UsageError: with the command that does start N.
    """
    environment = os.environ
    cpu = environment.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    if cpu and "MASTER_PORT" in environment and "WORLD_SIZE" not in environment:
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


def gpus_seen(asked: str) -> int:
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
            return compiler_absence(device)
        if kernels == "triton":
            return triton_obstacle(device, precision, recipe)
        if device != "cpu":
            return "it is for CPUs"
        if precision != "bf16":
            return f"it computes in bf16, not {precision}"
        return native.absence(kernels)

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


def compiler_absence(device: str) -> str | None:
    """Why torch's compiler cannot fuse operators for this device; None where it can."""
    if device == "cuda" and find_spec("triton") is None:
        return "the package triton is not installed"
    if device == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        return "there is no C++ compiler"
    return None


def triton_obstacle(device: str, precision: Precision, recipe: Recipe) -> str | None:
    """Why the Triton kernels cannot train a recipe here; None where they can."""
    if device != "cuda":
        return "it is for CUDA devices"
    if precision == "fp16":
        return "it computes in bf16 or fp32, not fp16"
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        return "it is for one process"
    if recipe.pipeline != "resident":
        return f"it takes resident images, not the {recipe.pipeline}'s"
    return fused.obstacle(recipe) or compiler_absence(device)


def choose_capture(
    asked: bool | None, recipe: Recipe, accelerator: Accelerator
) -> tuple[bool, str | None]:
    """Whether the device is to record whole steps, and why not where it could.

    Raises:
        UsageError: it was asked for and cannot be.
    """
    device = accelerator.device.type
    if device != "cuda":
        if asked:
            raise UsageError(f"--capture is for CUDA graphs, which {device} has not; leave it out")
        return False, None
    if asked is False:
        return False, "it was asked not to be"
    reason = static.obstacle(recipe, accelerator)
    if asked and reason:
        raise UsageError(f"--capture cannot be had: {reason}; leave it out")
    return reason is None, reason


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
        return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE") or 1))
    if not 1 <= asked <= cores:
        raise UsageError(f"--threads must be 1 to {cores} on this machine, not {asked}")
    return asked


def keep_layout(device: str, kernels: Kernels) -> None:
    """Before torch's compiler is imported: have it leave activations as `fitted` has them.

    It would choose channels last. The user's word goes before this; either is in the record.
    """
    if device == "mps" and kernels == "inductor":
        os.environ.setdefault("TORCHINDUCTOR_LAYOUT_OPTIMIZATION", "0")


def fitted(recipe: Recipe, device: str, kernels: Kernels) -> Recipe:
    """The recipe with the one choice a device may overrule: how activations lie in memory."""
    # MPS: wrong batch-norm gradients, convolutions 30x slower (pytorch issues 175189 and 193349).
    # Compiled kernels have a layout of their own and read contiguous weights.
    overruled = device == "mps" or kernels in native.KINDS
    return replace(recipe, memory_format="contiguous") if overruled else recipe


def _describe(
    accelerator: Accelerator, chosen: Chosen, machines: int, variables: dict[str, str]
) -> Setup:
    config = Path(default_config_file)
    return Setup(
        device=accelerator.device.type,
        device_name=device_name(accelerator.device.type),
        processes=accelerator.num_processes,
        machines=machines,
        threads=chosen.threads,
        precision=chosen.precision,
        kernels=chosen.kernels,
        matmul_precision=torch.get_float32_matmul_precision(),
        memory_format=chosen.recipe.memory_format,
        dynamo_backend=accelerator.state.dynamo_plugin.backend.value.lower(),
        accelerate_config=shortened(config) if config.exists() else None,
        launcher=launcher(),
        environment=variables,
    )


def _name_the_interface() -> None:
    """Have gloo use the network by which the ranks have met, unless the user names another."""
    address = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    is_main = os.environ.get("RANK") == os.environ.get("LOCAL_RANK")
    if address[0] and address[1]:
        name = interface(address[0], int(address[1]), is_main=is_main)
        if name is not None:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def as_it_ran(setup: Setup, capture_failure: str | None) -> Setup:
    """`setup` as it turned out, where steps could not be recorded although they were to be."""
    if capture_failure is None:
        return setup
    return setup.model_copy(update={"captured": False, "uncaptured_reason": capture_failure})


def _variables() -> dict[str, str]:
    return {name: shortened(os.environ[name]) for name in RECORDED_VARIABLES if name in os.environ}


def launcher() -> str:
    """What started this process: "accelerate", "torchrun" or "python"."""
    if "ACCELERATE_MIXED_PRECISION" in os.environ:
        return "accelerate"
    return "torchrun" if "TORCHELASTIC_RUN_ID" in os.environ else "python"


def _macos_major() -> int:
    return int((platform.mac_ver()[0] or "0").split(".")[0])
