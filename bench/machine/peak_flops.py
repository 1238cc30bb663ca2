"""How fast this machine multiplies matrices: an upper limit for the speed of training."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter

import torch

from bench.records.machine_key import MachineKey
from bench.records.schema import Environment
from bench.records.sidecars import PeakFlops

FIRST_SIDE = 512
"""Number of rows and columns of the first, smallest matrices."""
LONGEST_PRODUCT_SECONDS = 0.1
"""The size is doubled until one product takes longer: what fills a GPU exceeds a CPU's cache."""
MEASURING_SECONDS = 0.5
"""How long each size is measured."""
PRODUCTS = 5
"""Number of products between two clock readings; otherwise waiting for a GPU would count."""


@dataclass(frozen=True, slots=True)
class MeasuredPeak:
    """The best rate of several sizes and products."""

    flops_per_second: float
    """Rate of the best product; a multiplication and an addition count as two."""
    side: int
    """Number of rows and columns of the matrices of the best product."""


def measure_peaks(
    device: str, precisions: Iterable[str], threads: int, environment: Environment
) -> list[PeakFlops]:
    """Measure how fast a device multiplies matrices in each precision.

    Args:
        device: torch's name of the device.
        precisions: "fp32", "bf16" or "fp16".
        threads: number of threads of torch's operators, on a CPU.
        environment: the description of this machine.
    """
    peaks = []
    for precision in precisions:
        peak = measure_peak(device, precision, threads)
        peaks.append(
            PeakFlops(
                device=device,
                device_name=environment.device_name,
                precision=precision,
                threads=threads if device == "cpu" else None,
                flops_per_second=peak.flops_per_second,
                side=peak.side,
                measured_at=datetime.now(UTC),
                commit=environment.commit,
                torch=environment.torch,
                machine=MachineKey.of(environment).digest,
            )
        )
    return peaks


def measure_peak(device: str, precision: str, threads: int) -> MeasuredPeak:
    """Multiply square matrices of growing size, half a second each; the fastest product counts.

    The fastest, not the median: other programs can only slow a product down, and a limit that is
    too low would make training look better.

    Args:
        device: torch's name of the device.
        precision: "fp32", "bf16" or "fp16".
        threads: number of threads of torch's operators, on a CPU.
    """
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    torch.set_num_threads(threads)
    best = MeasuredPeak(0.0, FIRST_SIDE)
    side, seconds = FIRST_SIDE, 0.0
    while seconds < LONGEST_PRODUCT_SECONDS:
        seconds = _fastest_product_seconds(device, dtype, side)
        peak = MeasuredPeak(2 * side**3 / seconds, side)
        best = max(best, peak, key=lambda peak: peak.flops_per_second)
        side *= 2
    return best


def _fastest_product_seconds(device: str, dtype: torch.dtype, side: int) -> float:
    wait = torch.get_device_module(device).synchronize
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    a @ b
    wait()
    fastest = math.inf
    end = perf_counter() + MEASURING_SECONDS
    while (start := perf_counter()) < end:
        for _ in range(PRODUCTS):
            a @ b
        wait()
        fastest = min(fastest, (perf_counter() - start) / PRODUCTS)
    return fastest
