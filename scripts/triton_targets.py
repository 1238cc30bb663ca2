"""Compiles the Triton kernels for GPUs that need not be here, and prints what they would take.

    .venv/bin/python scripts/triton_targets.py
    .venv/bin/python scripts/triton_targets.py sm_75 gfx942 --precision fp32

A row is a target and a precision. "shapes" is the table of launch parameters that fits: a
benchmark on such a GPU tries the measured one first, and where a kernel takes more shared memory
than there is the halved one (docs/devices.md). Half a minute a row.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, cast

import torch
import typer
from accelerate import Accelerator
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from mnist_cnn.console import run
from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import load
from mnist_cnn.errors import UsageError, near_match
from mnist_cnn.kernels.buffers import device_buffers
from mnist_cnn.kernels.triton import network
from mnist_cnn.kernels.triton.shapes import SHAPES, Shapes, halved
from mnist_cnn.recipe import FAST_GPU, Precision


@dataclass(frozen=True, slots=True)
class Gpu:
    """A kind of GPU."""

    target: GPUTarget
    shared_bytes: int
    """Most shared memory of a block."""
    examples: str
    precisions: tuple[Precision, ...]
    """The precisions that it multiplies fast."""


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_BOTH: tuple[Precision, ...] = ("bf16", "fp32")
TABLES = {"measured": SHAPES, "halved": halved(SHAPES)}
"""In the order in which a benchmark tries them."""
GPUS = {
    "sm_75": Gpu(GPUTarget("cuda", 75, 32), 64 << 10, "T4, RTX 20", ("fp32",)),
    "sm_80": Gpu(GPUTarget("cuda", 80, 32), 163 << 10, "A100", _BOTH),
    "sm_86": Gpu(GPUTarget("cuda", 86, 32), 99 << 10, "A10, RTX 30", _BOTH),
    "sm_89": Gpu(GPUTarget("cuda", 89, 32), 99 << 10, "L4, RTX 40", _BOTH),
    "sm_90": Gpu(GPUTarget("cuda", 90, 32), 227 << 10, "H100, H200", _BOTH),
    "sm_100": Gpu(GPUTarget("cuda", 100, 32), 227 << 10, "B200", _BOTH),
    "sm_120": Gpu(GPUTarget("cuda", 120, 32), 99 << 10, "RTX 50", _BOTH),
    "gfx90a": Gpu(GPUTarget("hip", "gfx90a", 64), 64 << 10, "MI210, MI250", _BOTH),
    "gfx942": Gpu(GPUTarget("hip", "gfx942", 64), 64 << 10, "MI300", _BOTH),
    "gfx1100": Gpu(GPUTarget("hip", "gfx1100", 32), 64 << 10, "RX 7900", _BOTH),
    "gfx1201": Gpu(GPUTarget("hip", "gfx1201", 32), 64 << 10, "RX 9070", _BOTH),
}
"""By target. Sources: compute capabilities in NVIDIA's CUDA programming guide; the local data share
in AMD's instruction set documents."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """What the kernels of a step and an evaluation take."""

    kernels: int
    """Number of kernels, each specialisation of its own."""
    shared_bytes: int
    """Most shared memory of a block."""


class _Elsewhere:
    """Triton's driver of a device that is not here: it can compile for it, and nothing else."""

    def __init__(self, target: GPUTarget) -> None:
        self._target = target

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        # Triton keeps what it has compiled for a device by its number.
        return hash(self._target)

    def get_current_stream(self, _: int) -> int:
        return 0


@app.command()
def main(
    targets: Annotated[
        list[str] | None, typer.Argument(help="Targets, as sm_75 or gfx942 (default: all).")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="bf16 or fp32 (default: both, where the target has both).")
    ] = None,
) -> int:
    """Print a table: what the kernels take, and which table of shapes fits."""
    chosen = _chosen(targets)
    if precision not in (None, *_BOTH):
        raise UsageError(f"unknown precision {precision!r}; there are: {', '.join(_BOTH)}")
    print(f"{'target':8} {'GPUs':12} {'precision':9} {'kernels':>7}  {'shared memory':22} shapes")
    for name, gpu in chosen.items():
        for each in gpu.precisions:
            if precision in (None, each):
                print(_row(name, gpu, each), flush=True)
    return 0


def _chosen(targets: list[str] | None) -> dict[str, Gpu]:
    for target in targets or ():
        if target not in GPUS:
            hint = near_match(target, GPUS)
            raise UsageError(f"unknown target {target!r}{hint}; there are: {', '.join(GPUS)}")
    return {name: gpu for name, gpu in GPUS.items() if not targets or name in targets}


def _row(name: str, gpu: Gpu, precision: Precision) -> str:
    for table, shapes in TABLES.items():
        compiled, fitting = compile_for(gpu, precision, shapes), table
        if compiled.shared_bytes <= gpu.shared_bytes:
            break
    else:
        fitting = "none"
    memory = f"{compiled.shared_bytes / 1024:.1f} of {gpu.shared_bytes >> 10} KiB"
    return f"{name:8} {gpu.examples:12} {precision:9} {compiled.kernels:>7}  {memory:22} {fitting}"


def compile_for(gpu: Gpu, precision: Precision, shapes: Shapes) -> Compiled:
    """Compile the kernels of `fast-gpu`, one after the other.

    Raises:
        Exception: of Triton, where a kernel does not compile.
    """
    accelerator = SimpleNamespace(device=torch.device("cpu"), mixed_precision=precision)
    context = TrainingContext(FAST_GPU, cast(Accelerator, accelerator), "triton")
    buffers = device_buffers(context, load().split(FAST_GPU.evaluation_split))
    with _compiling_for(gpu.target):
        kernels = network.TritonProgram(context, buffers, shapes).compiled
    return Compiled(len(kernels), max(kernel.metadata.shared for kernel in kernels))


@contextmanager
def _compiling_for(target: GPUTarget) -> Iterator[None]:
    before = driver._active
    driver.set_active(_Elsewhere(target))
    try:
        yield
    finally:
        driver._active = before


if __name__ == "__main__":
    sys.exit(run(app, "triton_targets.py", sys.argv[1:]))
