"""Where a training step's time goes, as torch's profiler sees it."""

from __future__ import annotations

import gzip
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
from bench.text import printable
from mnist_cnn.disk import advice_for, check_replaceable, read_file, replace_file
from mnist_cnn.errors import UsageError, reason_of
from mnist_cnn.kernels import native
from mnist_cnn.user_folders import temporary_folder

COSTLIEST = 10
"""Number of operations that are printed."""
_LARGEST_BYTES = 4 << 30
"""Most bytes of a trace; that of a warm-up run has less than 100 MB."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One kind of operation, all its calls together."""

    name: str
    seconds: float
    """Spent in itself, not in what it calls: on the device, or on the CPU where that is it."""
    share: float
    """Of all operations' seconds."""
    calls: int


@dataclass(frozen=True, slots=True)
class WarmUpProfile:
    """What was measured, and whether its trace is written."""

    report: str
    """Tables of the costliest operations, and of layers where there are any."""
    problem: str | None
    """Why the trace could not be written; None where it is."""


def trace_steps(steps: Iterable[object], device: str) -> tuple[list[Operation], profile]:
    """Go through `steps` under the profiler.

    Args:
        steps: whatever trains as it is gone through.
        device: torch's device type.

    Returns:
        Every kind of operation, the costliest first, and what the profiler has seen.
    """
    kinds = {"cuda": ProfilerActivity.CUDA, "xpu": ProfilerActivity.XPU}
    activities = [ProfilerActivity.CPU, *([kinds[device]] if device in kinds else [])]
    with profile(activities=activities) as seen:
        for _ in steps:
            pass
        torch.get_device_module(device).synchronize()
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
    return sorted(operations, key=lambda operation: -operation.seconds), seen


def write_trace(seen: profile, path: Path) -> None:
    """Write what the profiler has seen, completely or not at all.

    Args:
        seen: by the profiler.
        path: where the trace goes, in the JSON that chrome://tracing and Perfetto open; compressed
            if its name ends in .gz.

    Raises:
        OSError: it could not be written; `path` is unchanged.
        UsageError: there is no folder for temporary files.
    """
    # torch writes to names of its own choice and does not say whether it could.
    with temporary_folder() as folder:
        written = folder / "trace.json"
        seen.export_chrome_trace(str(written))
        content = read_file(written, _LARGEST_BYTES) if written.exists() else b""
    if not content.rstrip().endswith(b"}"):
        raise OSError(f"torch could not write it to {folder.parent}, the folder of temporary files")
    replace_file(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


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
) -> WarmUpProfile | None:
    """Trace a warm-up run after a first one, and write the trace to `request.profile`.

    Args:
        request: what to train.
        fetch_data: gets MNIST where it is missing; its argument says whether it prints nothing.
        notify: called with a line where the preparation takes long.

    Returns:
        The costliest operations; None on every rank but the main one.

    Raises:
        UsageError: the trace's name cannot be that of a file, or the request is impossible here.
    """
    assert request.profile is not None
    _check_trace_path(request.profile)
    # The library below torch's profiler writes its own lines to stderr: what matters is told here.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
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
        operations, seen = trace_steps(workload.warm_up(), setup.device)
        lines = [operation_table(operations[:COSTLIEST])]
        if setup.kernels in native.KINDS:
            # torch's profiler does not see inside a compiled step.
            lines.append(layer_table(native.take_layer_seconds()))
        problem = _writing_problem(seen, request.profile)
        if problem is None:
            where = printable(str(request.profile))
            lines.append(f"the trace is in {where}; it opens in Perfetto (ui.perfetto.dev)")
        return WarmUpProfile("\n".join(lines), problem)
    finally:
        accelerator.end_training()


def _writing_problem(seen: profile, path: Path) -> str | None:
    """Write the trace; returns why it could not be written, None where it is."""
    try:
        write_trace(seen, path)
    except OSError as error:
        return f"the trace {path} cannot be written ({reason_of(error)}): {advice_for(error)}"
    except UsageError as error:
        return f"the trace {path} cannot be written: {error}"
    return None


def _check_trace_path(path: Path) -> None:
    """Refuse a file that cannot be written before anything is trained."""
    if not path.parent.is_dir():
        raise UsageError(f"--profile {path}: there is no folder {path.parent}; make it first")
    try:
        check_replaceable(path)
    except OSError as error:
        raise UsageError(f"--profile {path}: {reason_of(error)}; name another file") from error
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"--profile {path}: cannot be written; name another file")
