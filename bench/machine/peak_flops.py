"""How fast this machine multiplies matrices: the ceiling that training is held against."""

from __future__ import annotations

import math
from dataclasses import dataclass
from time import perf_counter

import torch

FIRST_SIDE = 512
LONGEST_PRODUCT_SECONDS = 0.1
"""Sides are doubled until a product takes longer: what fills a GPU leaves a CPU's cache."""
MEASURING_SECONDS = 0.5
PRODUCTS = 5


@dataclass(frozen=True, slots=True)
class MeasuredPeak:
    """The best rate seen over several sizes and products."""

    precision: str
    flops_per_second: float
    """A multiplication and an addition count as two."""
    side: int
    """Of the matrices it was seen with."""


def measure_peak(device: str, precision: str, threads: int) -> MeasuredPeak:
    """Multiply square matrices of growing size, half a second each, and take the fastest product.

    The fastest, not the median: what others do on the machine only slows it, and a ceiling that
    was lowered by them would flatter the training.

    Args:
        device: torch's device type.
        precision: "fp32", "bf16" or "fp16".
        threads: of torch's operators, on a CPU.
    """
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    torch.set_num_threads(threads)
    wait = torch.get_device_module(device).synchronize
    best = MeasuredPeak(precision, 0.0, FIRST_SIDE)
    side, quickest = FIRST_SIDE, 0.0
    while quickest < LONGEST_PRODUCT_SECONDS:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        a @ b
        wait()
        quickest = math.inf
        end = perf_counter() + MEASURING_SECONDS
        while (start := perf_counter()) < end:
            # Several between two looks at the clock, or the wait for a GPU would count.
            for _ in range(PRODUCTS):
                a @ b
            wait()
            quickest = min(quickest, (perf_counter() - start) / PRODUCTS)
        best = max(best, MeasuredPeak(precision, 2 * side**3 / quickest, side), key=_rate)
        side *= 2
    return best


def _rate(peak: MeasuredPeak) -> float:
    return peak.flops_per_second
