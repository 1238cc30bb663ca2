"""How fast the machine itself is just before a benchmark: a fixed product of matrices.

It trains nothing, so a difference here is the machine's: it is throttled, shared, or another one of
the same name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import torch

from bench.records.schema import Calibration

CPU_SIDE = 512
"""Number of rows and columns on a CPU: a slow core needs some milliseconds for a product."""
GPU_SIDE = 4096
"""Number of rows and columns elsewhere: enough work for every multiprocessor."""
MEASURING_SECONDS = 0.3
"""How long products are repeated."""
FEWEST_PRODUCTS = 3
"""Least number of products, however slow the device is."""


def measure_calibration(device: str, at_a_time: int = 1) -> Calibration:
    """Repeat one fp32 product of matrices for about 0.3 s; the fastest counts.

    The fastest, not the median: another program that takes a core for a moment is no property of
    the machine. On a CPU by one thread: where the system puts a new second thread is chance, and
    both were seen on one core for half a second. torch's number of threads and its random numbers
    are afterwards as before.

    Args:
        device: torch's name of the device.
        at_a_time: number of processes that may calibrate on this machine at the same time.
    """
    side = CPU_SIDE if device == "cpu" else GPU_SIDE
    start = perf_counter()
    with _one_thread():
        seconds = _fastest_product_seconds(device, side)
    return Calibration(
        work=_work(device, side, at_a_time),
        flops_per_second=2 * side**3 / seconds,
        seconds=perf_counter() - start,
    )


def _work(device: str, side: int, at_a_time: int) -> str:
    """``"fp32 product of 512 x 512 matrices on cpu, 1 thread"``."""
    parts = [f"fp32 product of {side} x {side} matrices on {device}"]
    if device == "cpu":
        parts.append("1 thread")
    rounding = torch.get_float32_matmul_precision()
    if rounding != "highest":
        parts.append(f"matmul precision {rounding}")
    if at_a_time > 1:
        parts.append(f"{at_a_time} processes at a time")
    return ", ".join(parts)


def _fastest_product_seconds(device: str, side: int) -> float:
    wait = torch.get_device_module(device).synchronize
    # A generator of its own: the run's random numbers do not depend on the calibration.
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(side, side, generator=generator).to(device) for _ in range(2))
    product = torch.empty_like(a)
    fastest, count = math.inf, 0
    with torch.no_grad():
        torch.mm(a, b, out=product)
        wait()
        end = perf_counter() + MEASURING_SECONDS
        while count < FEWEST_PRODUCTS or perf_counter() < end:
            start = perf_counter()
            torch.mm(a, b, out=product)
            wait()
            fastest = min(fastest, perf_counter() - start)
            count += 1
    return max(fastest, 1e-9)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch's operators use one thread for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
