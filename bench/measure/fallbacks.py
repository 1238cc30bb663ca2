"""What trained, where the code that a device is meant to have failed on it, as records hold it."""

from __future__ import annotations

from dataclasses import asdict

from bench.records.schema import Fallback, KernelShape, Setup
from mnist_cnn.engine.graph_cache import GraphCache
from mnist_cnn.failure import redact_paths
from mnist_cnn.kernels.triton.shapes import Shapes


def setup_as_run(setup: Setup, graphs: GraphCache | None) -> Setup:
    """The set-up with the code that trained: what was tried before it may have failed."""
    if graphs is None:
        return setup
    code, failures = graphs.code, graphs.failures
    changes: dict[str, object] = {
        "kernels": code.kernels,
        "captured": code.is_captured,
        "kernel_shapes": _kernel_shapes(code.shapes),
        "fallbacks": [
            Fallback(
                kernels=failure.code.kernels,
                captured=failure.code.is_captured,
                kernel_shapes=_kernel_shapes(failure.code.shapes),
                reason=redact_paths(failure.reason),
            )
            for failure in failures
        ],
    }
    if setup.captured and not code.is_captured:
        changes["uncaptured_reason"] = redact_paths(failures[-1].reason)
    return setup.model_copy(update=changes)


def _kernel_shapes(shapes: Shapes | None) -> list[KernelShape] | None:
    if shapes is None:
        return None
    return [
        KernelShape(kernel=kernel, side=side, **asdict(shape))
        for kernel, by_side in shapes.items()
        for side, shape in by_side.items()
    ]
