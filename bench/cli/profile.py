"""`mnist-bench run --profile`: where the time of some steps goes."""

from __future__ import annotations

import os
from pathlib import Path

from bench.cli.data import get_data
from bench.protocol import Protocol
from mnist_cnn.errors import UsageError
from mnist_cnn.recipe import Recipe

COSTLIEST = 10
"""Operations that are printed."""


def print_profile(
    recipe: Recipe,
    protocol: Protocol,
    path: Path,
    *,
    device: str,
    precision: str,
    threads: int | None,
    kernels: str,
    capture: bool | None,
    data_dir: Path | None,
) -> int:
    """Trace the warm-up run, warm, and print what it spent its time on."""
    from bench import launch
    from bench.profiling import layer_table, table, trace
    from bench.workload import MnistTraining
    from mnist_cnn import native

    _check_trace_path(path)
    accelerator, fitted, setup = launch.launch(
        recipe,
        device=device,
        precision=precision,
        threads=threads,
        kernels=kernels,
        capture=capture,
    )
    try:
        get_data(data_dir, silent=not accelerator.is_main_process)
        workload = MnistTraining(
            fitted,
            accelerator,
            data_dir,
            protocol.warmup_images,
            setup.kernels,
            captured=setup.captured,
        )
        for _ in workload.warm_up():
            pass
        if not accelerator.is_main_process:
            for _ in workload.warm_up():
                pass
            return 0
        if setup.kernels in native.KINDS:
            native.take_layer_seconds()
        operations = trace(workload.warm_up(), setup.device, path)
        print(table(operations[:COSTLIEST]))
        if setup.kernels in native.KINDS:
            # torch's profiler does not see a compiled step.
            print(layer_table(native.take_layer_seconds()))
        print(f"the trace is in {path}; it opens in Perfetto (ui.perfetto.dev)")
        return 0
    finally:
        accelerator.end_training()


def _check_trace_path(path: Path) -> None:
    """Refuse what cannot be written before anything is trained."""
    if not path.parent.is_dir():
        raise UsageError(f"--profile {path}: there is no folder {path.parent}; make it first")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"--profile {path}: cannot be written; name another file")
