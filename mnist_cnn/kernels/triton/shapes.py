"""Launch parameters of the Triton kernels, by kernel and by the side of its images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Shape:
    """Launch parameters of a kernel."""

    pixels: int
    """Number of pixels that a program takes at a time (a tile)."""
    warps: int = 4
    """Number of warps of a program."""
    per_unit: int = 4
    """Number of programs per multiprocessor, which share all tiles; 0: one program per tile."""
    stages: int | None = None
    """Stages of the pipeline that loads the next taps of a 3x3 kernel; None for other kernels."""

    def options(self) -> dict[str, int]:
        """The same as Triton's options."""
        options = {"BM": self.pixels, "num_warps": self.warps, "num_stages": 1}
        return options if self.stages is None else options | {"STAGES": self.stages}


Shapes = Mapping[str, Mapping[int, Shape]]
"""By kernel and side of its images."""

SHAPES: Shapes = {
    "stem_sums": {28: Shape(256, 4, 4)},
    "stem": {28: Shape(256, 4, 0)},
    "block": {28: Shape(256, 4, 2, 3), 14: Shape(128, 4, 4, 3), 7: Shape(64, 4, 2, 4)},
    "pointwise": {28: Shape(256, 4, 2), 14: Shape(128, 4, 2), 7: Shape(16, 8, 2)},
    "pool": {14: Shape(64, 2, 0), 7: Shape(16, 4, 0)},
    "pointwise_back": {28: Shape(128, 4, 2), 14: Shape(64, 4, 1), 7: Shape(16, 8, 1)},
    "block_weight_back": {28: Shape(128, 2, 1), 14: Shape(32, 1, 2), 7: Shape(32, 1, 1)},
    "pooled_back": {14: Shape(64, 4, 2, 3), 7: Shape(32, 2, 4, 3)},
    "stem_input_back": {28: Shape(256, 4, 2, 3)},
    "stem_weight_back": {28: Shape(256, 4, 2)},
}
"""The fastest measured on an H200 with batches of 256."""

FEWEST_PIXELS = 16
"""Rows of the smallest product of matrices that Triton compiles."""


def halved(shapes: Shapes) -> Shapes:
    """The same with half the pixels at a time: for devices with less shared memory."""
    return {
        kernel: {
            side: replace(shape, pixels=max(FEWEST_PIXELS, shape.pixels // 2))
            for side, shape in by_side.items()
        }
        for kernel, by_side in shapes.items()
    }
