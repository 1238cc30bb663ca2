"""From what was chosen to an `Accelerator` that truly is that, or one clear line.

The training loop takes it as it comes. Source of the traps refused here: shared facts on
Accelerate 1.15, each measured.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.commands.config.config_args import default_config_file
from accelerate.utils import DistributedType

from bench.machine.environment import device_name
from bench.machine.network import find_interface
from bench.measure.plan import ExecutionPlan, resolve_plan, several_processes_command
from bench.measure.redaction import redact_paths
from bench.records.schema import ParityCheck, Setup
from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import load
from mnist_cnn.distributed import process_group
from mnist_cnn.engine.capture import capture_unsupported_reason
from mnist_cnn.errors import UsageError
from mnist_cnn.kernels import native
from mnist_cnn.parity import compare_with_cpu
from mnist_cnn.rank import Rank
from mnist_cnn.recipe import Kernels, Recipe

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


def start_accelerator(
    recipe: Recipe,
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    kernels: str = "auto",
    capture: bool | None = None,
) -> tuple[Accelerator, Recipe, Setup]:
    """`resolve_plan` and `join` in one, for one process; arguments and errors as theirs."""
    chosen = resolve_plan(recipe, device, precision, threads, kernels)
    return join(chosen, capture=capture)


def join(
    chosen: ExecutionPlan, *, capture: bool | None = None, machines: int = 1
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
    context = TrainingContext(recipe, accelerator, setup.kernels)
    found = compare_with_cpu(context, data, setup.precision)
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
    reason = capture_unsupported_reason(recipe, accelerator)
    if asked and reason:
        raise UsageError(f"--capture cannot be had: {reason}; leave it out")
    return reason is None, reason


def keep_layout(device: str, kernels: Kernels) -> None:
    """Before torch's compiler is imported: have it leave activations as `fit_recipe` has them.

    It would choose channels last. The user's word goes before this; either is in the record.
    """
    if device == "mps" and kernels == "inductor":
        os.environ.setdefault("TORCHINDUCTOR_LAYOUT_OPTIMIZATION", "0")


def _describe(
    accelerator: Accelerator, chosen: ExecutionPlan, machines: int, variables: dict[str, str]
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
        accelerate_config=redact_paths(config) if config.exists() else None,
        launcher=launcher(),
        environment=variables,
    )


def _name_the_interface() -> None:
    """Have gloo use the network by which the ranks have met, unless the user names another."""
    address = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    is_main = Rank.from_environment().is_on_main_machine
    if address[0] and address[1]:
        name = find_interface(address[0], int(address[1]), is_main=is_main)
        if name is not None:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def setup_as_run(setup: Setup, capture_failure: str | None) -> Setup:
    """`setup` as it turned out, where steps could not be recorded although they were to be."""
    if capture_failure is None:
        return setup
    return setup.model_copy(update={"captured": False, "uncaptured_reason": capture_failure})


def _variables() -> dict[str, str]:
    return {
        name: redact_paths(os.environ[name]) for name in RECORDED_VARIABLES if name in os.environ
    }


def launcher() -> str:
    """What started this process: "accelerate", "torchrun" or "python"."""
    if "ACCELERATE_MIXED_PRECISION" in os.environ:
        return "accelerate"
    return "torchrun" if "TORCHELASTIC_RUN_ID" in os.environ else "python"
