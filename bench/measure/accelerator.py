"""Turn a plan into an `Accelerator` that is exactly that, or refuse in one line.

The traps that are refused here were measured with Accelerate 1.15.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from accelerate import Accelerator
from accelerate.commands.config.config_args import default_config_file
from accelerate.utils import DistributedType

from bench.machine.environment import device_name
from bench.machine.network import find_interface
from bench.measure.fallbacks import setup_as_run
from bench.measure.plan import ExecutionPlan, resolve_plan, several_processes_command
from bench.measure.recorded_variables import recorded_variables
from bench.measure.request import ComputeRequest
from bench.records.schema import ParityCheck, Setup
from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import load
from mnist_cnn.distributed import process_group, use_loopback_interface
from mnist_cnn.engine.capture import capture_unsupported_reason
from mnist_cnn.engine.graph_cache import Alternatives, GraphCache
from mnist_cnn.errors import UsageError
from mnist_cnn.failure import redact_paths
from mnist_cnn.kernels import native
from mnist_cnn.parity import compare_with_cpu
from mnist_cnn.rank import Rank, is_launched, meeting_address
from mnist_cnn.recipe import Kernels, Recipe
from mnist_cnn.surroundings import is_started_by_accelerate

PLAIN_DISTRIBUTION = (
    DistributedType.NO,
    DistributedType.MULTI_CPU,
    DistributedType.MULTI_GPU,
    DistributedType.MULTI_XPU,
)
"""Kinds of distribution that do not change the recipe: no FSDP, no DeepSpeed, no Megatron."""


class JoinedAccelerator(NamedTuple):
    """The accelerator that a plan has become."""

    accelerator: Accelerator
    recipe: Recipe
    """The recipe as it runs on this device."""
    setup: Setup
    """The set-up as records hold it, as far as it is known before anything was tried."""
    alternatives: Alternatives
    """What else may compute where this fails."""

    @property
    def context(self) -> TrainingContext:
        """What the workload trains with."""
        return TrainingContext(self.recipe, self.accelerator, self.setup.kernels)


def start_accelerator(recipe: Recipe, compute: ComputeRequest | None = None) -> JoinedAccelerator:
    """Resolve a plan and join, for one process; errors as those of `resolve_plan` and `join`."""
    return join(resolve_plan(recipe, compute or ComputeRequest()))


def join(plan: ExecutionPlan, machines: int = 1) -> JoinedAccelerator:
    """Make the accelerator that a plan describes.

    Args:
        plan: the same on every rank; every rank calls this.
        machines: number of machines that the ranks are on.

    Raises:
        UsageError: Accelerate made something else of it, or steps cannot be recorded.
    """
    # Explicit: with a dynamo backend Accelerate would turn TF32 on, and cuDNN's is on by default.
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    if machines > 1:
        _name_the_interface()
    elif plan.processes > 1:
        use_loopback_interface()
    keep_layout(plan.device, plan.kernels)
    # Read before Accelerate writes to the environment: what it writes is not the user's.
    variables = recorded_variables()
    accelerator = Accelerator(
        cpu=plan.device == "cpu",
        mixed_precision="no" if plan.precision == "fp32" else plan.precision,
        dynamo_backend="no",
        kwargs_handlers=[process_group()],
    )
    # Last: where OMP_NUM_THREADS is not set, Accelerate has chosen a number of its own.
    # Compiled code has threads of its own; torch's would wait for work on the same cores.
    torch.set_num_threads(1 if plan.kernels in native.KINDS else plan.threads)
    if plan.kernels in native.KINDS:
        native.set_threads(plan.threads)
    if accelerator.num_processes != plan.processes or accelerator.device.type != plan.device:
        raise UsageError(
            f"asked for {plan.processes} processes on {plan.device}, got "
            f"{accelerator.num_processes} on {accelerator.device.type}; for several processes on a "
            f"CPU use: {several_processes_command(plan.processes)}"
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
    described = _describe(accelerator, plan, machines, variables)
    captured, reason = choose_capture(plan.capture, plan.recipe, accelerator)
    described = described.model_copy(update={"captured": captured, "uncaptured_reason": reason})
    alternatives = Alternatives(kernels=not plan.kernels_asked, capture=plan.capture is None)
    return JoinedAccelerator(accelerator, plan.recipe, described, alternatives)


@contextmanager
def refuse_unusable_device() -> Iterator[None]:
    """Turn a failure of the first work on a device into a UsageError: no run has failed.

    Raises:
        UsageError: the driver or the memory of the device refuses.
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
    joined: JoinedAccelerator, data_dir: Path | None, graphs: GraphCache | None
) -> ParityCheck | None:
    """Check that what will be timed trains as the CPU does.

    Args:
        joined: what will be timed.
        data_dir: folder of MNIST.
        graphs: the engine of captured or fused steps that will be timed; None for the eager one.

    Raises:
        UsageError: it does not, so its speed would mean nothing; or kernels that were asked for
            cannot be compiled or run.
    """
    mnist = load(data_dir, offline=True, threads=joined.setup.threads)
    data = mnist.split(joined.recipe.evaluation_split)
    try:
        difference = compare_with_cpu(joined.context, data, joined.setup.precision, graphs)
    except (UsageError, torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception as error:  # a compiler raises what it likes
        if joined.setup.kernels != "inductor":
            raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UsageError(
            f"--kernels inductor cannot be used: {reason}; use --kernels auto"
        ) from error
    if difference is None:
        return None
    setup = setup_as_run(joined.setup, graphs)
    if difference.problem is not None:
        if setup.kernels != "torch":
            other = "--kernels torch"
        elif setup.captured:
            other = "--no-capture"
        else:
            other = "--precision fp32" + ("" if setup.device == "cpu" else " or --device cpu")
        raise UsageError(
            f"{setup.computed_by} in {setup.precision} on {setup.device} does not compute this "
            f"network: {difference.problem}; use {other}"
        )
    return ParityCheck(**asdict(difference))


def choose_capture(
    asked: bool | None, recipe: Recipe, accelerator: Accelerator
) -> tuple[bool, str | None]:
    """Decide whether whole steps are recorded as CUDA graphs.

    Returns:
        The decision, and on a CUDA device the reason against it.

    Raises:
        UsageError: it was asked for and is impossible.
    """
    device = accelerator.device.type
    if device != "cuda":
        if asked:
            raise UsageError(
                f"--capture is for CUDA graphs, which {device} does not have; leave it out"
            )
        return False, None
    if asked is False:
        return False, "it was asked not to be"
    reason = capture_unsupported_reason(recipe, accelerator)
    if asked and reason:
        raise UsageError(f"--capture is not possible: {reason}; leave it out")
    return reason is None, reason


def keep_layout(device: str, kernels: Kernels) -> None:
    """Make torch's compiler keep the memory layout of `fit_recipe`, before it is imported.

    By default it chooses channels last. The user's own setting wins; the record holds either.
    """
    if device == "mps" and kernels == "inductor":
        os.environ.setdefault("TORCHINDUCTOR_LAYOUT_OPTIMIZATION", "0")


def _describe(
    accelerator: Accelerator, plan: ExecutionPlan, machines: int, variables: dict[str, str]
) -> Setup:
    return Setup(
        device=accelerator.device.type,
        device_name=device_name(accelerator.device.type),
        processes=accelerator.num_processes,
        machines=machines,
        threads=plan.threads,
        precision=plan.precision,
        kernels=plan.kernels,
        matmul_precision=torch.get_float32_matmul_precision(),
        memory_format=plan.recipe.memory_format,
        dynamo_backend=accelerator.state.dynamo_plugin.backend.value.lower(),
        accelerate_config=accelerate_config(),
        launcher=launcher(),
        environment=variables,
    )


def _name_the_interface() -> None:
    """Make gloo use the network on which the ranks met, unless the user names another."""
    address = meeting_address()
    is_main = Rank.from_environment().is_on_main_machine
    if address is not None:
        name = find_interface(*address, is_main=is_main)
        if name is not None:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def launcher() -> str:
    """What started this process: "accelerate", "torchrun" or "python"."""
    if is_started_by_accelerate():
        return "accelerate"
    return "torchrun" if is_launched() and "TORCHELASTIC_RUN_ID" in os.environ else "python"


def accelerate_config() -> str | None:
    """The configuration file that `accelerate launch` read for this process; None where none.

    Only `accelerate launch` reads one, and it does not pass the name on. So it is taken from the
    command line of the parent that it is.
    """
    if not is_started_by_accelerate():
        return None
    try:
        commands = [process.cmdline() for process in psutil.Process().parents()]
    except (psutil.Error, OSError):
        return None
    config = next((_named_config(words) for words in commands if _is_accelerate(words)), None)
    return None if config is None else redact_paths(config)


def _is_accelerate(words: Sequence[str]) -> bool:
    """Whether these are the words of `accelerate launch`, in one of its forms."""
    names = [Path(word).name for word in words[:4]]
    others = {"accelerate.commands.launch", "accelerate-launch", "accelerate_launch.py"}
    return ("accelerate", "launch") in pairwise(names) or not others.isdisjoint(names)


def _named_config(words: Sequence[str]) -> Path | None:
    """The file that --config_file names, else Accelerate's default file where there is one."""
    for word, following in pairwise((*words, "")):
        option, equals, name = word.partition("=")
        if option == "--config_file":
            return Path(name if equals else following)
    default = Path(default_config_file)
    return default if default.exists() else None
