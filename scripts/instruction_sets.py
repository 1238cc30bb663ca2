"""Measures compiled code of each instruction set that this CPU has, against the set's own limit.

    .venv/bin/python scripts/instruction_sets.py --rounds 11
    .venv/bin/python scripts/instruction_sets.py avx2 avx512 --threads 1

A round does, for each set in turn, some training steps of `fast` with dropout (forward, backward; a
batch of random images) and multiplications from registers just before and after them: their rate is
the limit of any step on the same cores at the same time. Do not use the machine meanwhile.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import Annotated

import torch
import typer

from bench.machine.cores import usable_cores
from bench.records.sidecars import TRAINING_FLOPS
from mnist_cnn.console import run
from mnist_cnn.errors import UsageError
from mnist_cnn.kernels import native
from mnist_cnn.kernels.native import NativeKernel
from mnist_cnn.model import MnistCnn
from mnist_cnn.recipe import FAST, NativeKernels

MULTIPLYING_SECONDS = 0.02
STEPS = 8

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass
class Measured:
    """One instruction set's rates, a value a round."""

    kernel: NativeKernel
    limits: list[float] = field(default_factory=list)
    """Operations per second from registers."""
    rates: list[float] = field(default_factory=list)
    """Images per second of a step."""
    shares: list[float] = field(default_factory=list)
    """Operations of the step over those of the limit of the same round."""


def timed(work: Callable[[], float]) -> float:
    """Amount of work a second."""
    start = perf_counter()
    amount = work()
    return amount / (perf_counter() - start)


def rounds_for(kernels: NativeKernels) -> int:
    """Multiplications that take about MULTIPLYING_SECONDS."""
    rounds = 1000
    while True:
        start = perf_counter()
        native.multiply(kernels, rounds)
        seconds = perf_counter() - start
        if seconds > MULTIPLYING_SECONDS / 4:
            return max(1, round(rounds * MULTIPLYING_SECONDS / seconds))
        rounds *= 4


@app.command()
def main(
    sets: Annotated[
        list[str] | None, typer.Argument(help="Instruction sets (default: all but scalar).")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Number of rounds.")] = 11,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads (default: all cores).")
    ] = None,
) -> int:
    """Print a table: images per second, and the share of the instructions' limit."""
    chosen: list[NativeKernels] = [kind for kind in native.KINDS if kind in (sets or [])]
    if unknown := set(sets or []) - set(native.KINDS):
        raise UsageError(f"unknown instruction set {min(unknown)!r}")
    if not sets:
        chosen = [k for k in native.FAST_KINDS if native.unavailable_reason(k) is None]
    for kernels in chosen:
        if reason := native.unavailable_reason(kernels):
            raise UsageError(f"{kernels}: {reason}")
    count = threads or usable_cores()
    native.set_threads(count)
    torch.set_num_threads(1)
    batch = FAST.batch_size
    images, labels = torch.randn(batch, 1, 28, 28), torch.randint(10, (batch,))
    measured = {
        kernels: Measured(
            NativeKernel(MnistCnn(FAST.dropout), FAST.norm_batch_size or batch, kernels)
        )
        for kernels in chosen
    }
    multiplications = {kernels: rounds_for(kernels) for kernels in chosen}

    def steps(kernel: NativeKernel) -> float:
        for _ in range(STEPS):
            kernel(images, labels)
        return STEPS * batch

    for each in measured.values():
        steps(each.kernel)
    for _ in range(rounds):
        for kernels, each in random.sample(list(measured.items()), len(measured)):

            def multiply(kernels: NativeKernels = kernels) -> float:
                return native.multiply(kernels, multiplications[kernels])

            before = timed(multiply)
            rate = timed(lambda kernel=each.kernel: steps(kernel))  # type: ignore[misc]
            limit = (before + timed(multiply)) / 2
            each.limits.append(limit)
            each.rates.append(rate)
            each.shares.append(rate * TRAINING_FLOPS / limit)
    print(f"{count} threads, {rounds} rounds; medians, least and most")
    print(f"{'set':<12} {'images/s':>28} {'GFLOP/s limit':>28} {'share of it':>20}")
    for kernels, each in measured.items():
        limits = [limit / 1e9 for limit in each.limits]
        print(f"{kernels:<12} {span(each.rates)} {span(limits)} {span(each.shares, 2)}")
    return 0


def span(values: list[float], digits: int = 0) -> str:
    """``"1,234 (1,200-1,300)"``."""
    middle, least, most = (f"{v:,.{digits}f}" for v in (median(values), min(values), max(values)))
    return f"{f'{middle} ({least}-{most})':>{20 if digits else 28}}"


if __name__ == "__main__":
    sys.exit(run(app, "instruction_sets.py", sys.argv[1:]))
