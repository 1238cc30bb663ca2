"""Where a training step's time goes, as torch's profiler sees it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from bench.measure.accelerator import start_accelerator
from bench.measure.clock import DeviceClock
from bench.measure.request import RunRequest
from bench.measure.step_graphs import prepare_step_graphs
from bench.measure.workload import MnistTraining
from bench.stats.sums import exact_sum
from mnist_cnn.disk import refuse_link
from mnist_cnn.errors import UsageError
from mnist_cnn.kernels import native

COSTLIEST = 10
"""Number of operations that are printed."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One kind of operation, all its calls together."""

    name: str
    seconds: float
    """Spent in itself, not in what it calls: on the device, or on the CPU where that is it."""
    share: float
    """Of all operations' seconds."""
    calls: int


def trace_steps(steps: Iterable[object], device: str, path: Path) -> list[Operation]:
    """Go through `steps` under the profiler.

    Args:
        steps: whatever trains as it is gone through.
        device: torch's device type.
        path: where the trace goes, in the JSON that chrome://tracing and Perfetto open; compressed
            if its name ends in .gz.

    Returns:
        Every kind of operation, the costliest first.

    Raises:
        OSError: the trace could not be written.
    """
    kinds = {"cuda": ProfilerActivity.CUDA, "xpu": ProfilerActivity.XPU}
    activities = [ProfilerActivity.CPU, *([kinds[device]] if device in kinds else [])]
    with profile(activities=activities) as seen:
        for _ in steps:
            pass
        torch.get_device_module(device).synchronize()
    seen.export_chrome_trace(str(path))
    on_device = device in kinds
    microseconds = {
        event: event.self_device_time_total if on_device else event.self_cpu_time_total
        for event in seen.key_averages()
    }
    total = exact_sum(microseconds.values()) or 1.0
    operations = [
        Operation(event.key, spent / 1e6, spent / total, event.count)
        for event, spent in microseconds.items()
        if spent > 0
    ]
    return sorted(operations, key=lambda operation: -operation.seconds)


def operation_table(operations: list[Operation]) -> str:
    """One line an operation, at most 80 columns wide."""
    lines = [f"{'operation':<46} {'share':>7} {'seconds':>10} {'calls':>8}"]
    lines += [
        f"{operation.name[:46]:<46} {operation.share:>7.1%} {operation.seconds:>10.4f} "
        f"{operation.calls:>8,}"
        for operation in operations
    ]
    return "\n".join(lines)


def layer_table(seconds: dict[str, float]) -> str:
    """One line a layer of the compiled step, each way, the costliest first; at most 80 columns."""
    total = exact_sum(seconds.values()) or 1.0
    lines = [f"{'layer of the compiled step':<46} {'share':>7} {'seconds':>10}"]
    lines += [
        f"{name:<46} {spent / total:>7.1%} {spent:>10.4f}"
        for name, spent in sorted(seconds.items(), key=lambda item: -item[1])
    ]
    return "\n".join(lines)


def profile_warm_up(
    request: RunRequest, fetch_data: Callable[[bool], object], notify: Callable[[str], None]
) -> str | None:
    """Trace a warm-up run after a first one, and write the trace to `request.profile`.

    Args:
        request: what to train.
        fetch_data: gets MNIST where it is missing; its argument says whether it prints nothing.
        notify: called with a line where the preparation takes long.

    Returns:
        A report of the costliest operations; None on every rank but the main one.

    Raises:
        UsageError: the trace cannot be written, or the request is impossible here.
    """
    assert request.profile is not None
    _check_trace_path(request.profile)
    joined = start_accelerator(request.recipe, request.compute)
    accelerator, setup = joined.accelerator, joined.setup
    try:
        fetch_data(not accelerator.is_main_process)
        graphs = prepare_step_graphs(joined, DeviceClock(accelerator), notify)
        workload = MnistTraining(
            joined.context,
            request.data_dir,
            request.protocol.warmup_images,
            graphs=graphs.cache,
        )
        for _ in workload.warm_up():
            pass
        if not accelerator.is_main_process:
            for _ in workload.warm_up():
                pass
            return None
        if setup.kernels in native.KINDS:
            native.take_layer_seconds()
        operations = trace_steps(workload.warm_up(), setup.device, request.profile)
        lines = [operation_table(operations[:COSTLIEST])]
        if setup.kernels in native.KINDS:
            # torch's profiler does not see inside a compiled step.
            lines.append(layer_table(native.take_layer_seconds()))
        lines.append(f"the trace is in {request.profile}; it opens in Perfetto (ui.perfetto.dev)")
        return "\n".join(lines)
    finally:
        accelerator.end_training()


def _check_trace_path(path: Path) -> None:
    """Refuse a file that cannot be written before anything is trained."""
    refuse_link(path)
    if not path.parent.is_dir():
        raise UsageError(f"--profile {path}: there is no folder {path.parent}; make it first")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"--profile {path}: cannot be written; name another file")
