"""Captures work of the device, so that it can be replayed without Python.

Source: whole-network capture in PyTorch's notes on CUDA graphs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from accelerate import Accelerator

from mnist_cnn.recipe import Recipe

Replay = Callable[[], None]
"""Does the captured work once more."""
Capture = Callable[[Callable[[], None], Callable[[], None]], Replay]
"""Takes `work` and `rewind`, and returns the replay of `work`.

`work` reads and writes tensors that keep their addresses. A capture may run `work`; before each
such run it calls `rewind`, which sets those tensors back to the start."""

_WARM_UPS = 3
"""Runs of the work before the capture, in which libraries set up and choose their algorithms."""


class CaptureError(Exception):
    """Work that runs cannot be captured; the cause says why."""


def capture_cuda_graph(work: Callable[[], None], rewind: Callable[[], None]) -> Replay:
    """Capture `work` as a CUDA graph.

    Raises:
        CaptureError: the work cannot be captured, for example because it waits for the device.
        Exception: of any kind, where the work does not run.
    """
    side_stream = torch.cuda.Stream()
    side_stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side_stream):
        for _ in range(_WARM_UPS):
            rewind()
            work()
    torch.cuda.current_stream().wait_stream(side_stream)
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # torch, the driver and kernels' launchers raise what they like
        raise CaptureError(str(error)) from error
    return graph.replay


def without_capture(work: Callable[[], None], rewind: Callable[[], None]) -> Replay:
    """Capture nothing: each replay runs `work` again, operation by operation.

    Raises:
        Exception: of any kind, where the work does not run.
    """
    rewind()
    work()
    return work


def capture_unsupported_reason(recipe: Recipe, accelerator: Accelerator) -> str | None:
    """Why the steps of a recipe cannot be captured; None where they can."""
    if accelerator.num_processes > 1:
        return "several processes join their gradients in every step"
    if accelerator.scaler is not None:
        return "fp16 checks in every step whether its gradients are finite"
    if recipe.pipeline != "resident":
        return f"the {recipe.pipeline} pipeline distorts images on the CPU"
    if recipe.optimizer != "sgd" or recipe.cycle_momentum:
        return "only SGD with constant momentum has its schedule on the device"
    return None
