"""The engine of captured or fused steps that a benchmark trains with, where it has one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.measure.accelerator import JoinedAccelerator, refuse_unusable_device
from bench.measure.clock import DeviceClock
from bench.measure.shape_tuning import ChosenShapes, choose_shapes
from mnist_cnn.engine.capture import capture_cuda_graph, without_capture
from mnist_cnn.engine.graph_cache import GraphCache
from mnist_cnn.kernels.triton.shapes import SHAPES
from mnist_cnn.recipe import WHOLE_STEP_KERNELS

_MEASURED = ChosenShapes(shapes=SHAPES, seconds=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepGraphs:
    """What replays whole steps."""

    cache: GraphCache | None = None
    """Their engine, for all runs; None where steps are launched one by one."""
    chosen: ChosenShapes = _MEASURED
    """Launch parameters of Triton's kernels; its time is no part of a start-up."""


def prepare_step_graphs(
    joined: JoinedAccelerator, clock: DeviceClock, notify: Callable[[str], None]
) -> StepGraphs:
    """Choose launch parameters, and make the engine; nothing is compiled for it yet.

    Args:
        joined: what will train.
        clock: the device's clock.
        notify: called with a line where this takes long.

    Raises:
        UsageError: the device cannot be used.
    """
    setup = joined.setup
    if not setup.captured and setup.kernels not in WHOLE_STEP_KERNELS:
        return StepGraphs()
    chosen = _MEASURED
    if setup.kernels == "triton":
        with refuse_unusable_device():
            chosen = choose_shapes(joined.context, clock, notify)
    capture = capture_cuda_graph if setup.captured else without_capture
    cache = GraphCache(joined.context, capture, joined.alternatives, chosen.shapes)
    return StepGraphs(cache=cache, chosen=chosen)
