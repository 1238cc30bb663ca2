"""Finds faster launch parameters for a device: tries the neighbours of those that were measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from mnist_cnn.kernels.triton.shapes import FEWEST_PIXELS, Shape, Shapes

GAIN = 0.02
"""A change is kept where the steps then take less time by more than this share: less is noise."""
MOST_PIXELS, MOST_WARPS, MOST_PER_UNIT, MOST_STAGES = 512, 8, 8, 5
_DEAREST_FIRST = (
    "block_weight_back",
    "pointwise_back",
    "block",
    "stem_input_back",
    "pooled_back",
    "pointwise",
    "stem_weight_back",
    "stem",
    "pool",
    "stem_sums",
)
"""By their share of a step on an H200 (docs/speed.md): time may not last for all."""


class BrokenDeviceError(Exception):
    """A candidate has broken the device for this process.

    Args:
        shapes: the fastest that were tried before.
    """

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self.shapes = shapes


def tune(
    start: Shapes, seconds_of: Callable[[Shapes], float], is_over: Callable[[], bool]
) -> Shapes:
    """Change one launch parameter after the other, and keep what makes the steps faster.

    Args:
        start: with which the kernels run.
        seconds_of: how long some steps take with given parameters; may raise what it likes where
            the kernels do not compile or do not run, except with `start`.
        is_over: whether no more may be tried; asked before each candidate.

    Returns:
        The fastest that were tried.

    Raises:
        BrokenDeviceError: a candidate did what ends all work of this process on the device.
        Exception: of any kind, where the steps do not run with `start`.
    """
    best, best_seconds = start, seconds_of(start)
    for kernel in sorted(start, key=_DEAREST_FIRST.index):
        for side, shape in start[kernel].items():
            for candidate in neighbours(shape):
                if is_over():
                    return best
                tried = {**best, kernel: {**best[kernel], side: candidate}}
                try:
                    seconds = seconds_of(tried)
                except torch.AcceleratorError as error:
                    raise BrokenDeviceError(best) from error
                except Exception:  # a compiler raises what it likes
                    continue
                if seconds < (1 - GAIN) * best_seconds:
                    best, best_seconds = tried, seconds
    return best


def neighbours(shape: Shape) -> Iterator[Shape]:
    """The shapes with one parameter twice or half as large, or one stage more or less.

    The number of programs per multiprocessor stays none where it is none.
    """
    candidates = [replace(shape, pixels=n) for n in (shape.pixels // 2, shape.pixels * 2)]
    candidates += [replace(shape, warps=n) for n in (shape.warps // 2, shape.warps * 2)]
    if shape.per_unit > 1:
        candidates.append(replace(shape, per_unit=shape.per_unit // 2))
    if shape.per_unit:
        candidates.append(replace(shape, per_unit=shape.per_unit * 2))
    if shape.stages is not None:
        candidates += [replace(shape, stages=n) for n in (shape.stages - 1, shape.stages + 1)]
    yield from filter(is_possible, candidates)


def is_possible(shape: Shape) -> bool:
    """Whether the kernels take such parameters at all."""
    return (
        _is_power_of_two(shape.pixels)
        and FEWEST_PIXELS <= shape.pixels <= MOST_PIXELS
        and _is_power_of_two(shape.warps)
        and shape.warps <= MOST_WARPS
        and 0 <= shape.per_unit <= MOST_PER_UNIT
        and (shape.stages is None or 1 <= shape.stages <= MOST_STAGES)
    )


def _is_power_of_two(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0
