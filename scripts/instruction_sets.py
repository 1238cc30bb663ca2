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
from torch import Tensor

from bench.measure.plan import choose_threads
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

    kernels: NativeKernels
    steps: Callable[[], float]
    """Does some training steps; returns the number of images."""
    multiplications: int
    """Rounds of multiplications that take about MULTIPLYING_SECONDS."""
    limits: list[float] = field(default_factory=list)
    """Operations per second from registers."""
    rates: list[float] = field(default_factory=list)
    """Images per second of a step."""
    shares: list[float] = field(default_factory=list)
    """Operations of the step over those of the limit of the same round."""

    @classmethod
    def of(cls, kernels: NativeKernels, images: Tensor, labels: Tensor) -> Measured:
        """Nothing measured yet; the steps have run once."""
        network = MnistCnn(FAST.dropout)
        kernel = NativeKernel(network, FAST.norm_batch_size or len(images), kernels)

        def steps() -> float:
            for _ in range(STEPS):
                kernel(images, labels)
            return STEPS * len(images)

        steps()
        return cls(kernels, steps, rounds_for(kernels))

    def measure(self) -> None:
        """Add a value to each list."""
        before = timed(self._multiply)
        rate = timed(self.steps)
        limit = (before + timed(self._multiply)) / 2
        self.limits.append(limit)
        self.rates.append(rate)
        self.shares.append(rate * TRAINING_FLOPS / limit)

    def _multiply(self) -> float:
        return native.multiply(self.kernels, self.multiplications)


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


def chosen_sets(names: list[str] | None) -> list[NativeKernels]:
    """The sets of those names; without names, all that this CPU has but the judge.

    Raises:
        UsageError: a name is unknown, or this CPU has no such instructions.
    """
    if not names:
        return [kind for kind in native.FAST_KINDS if native.unavailable_reason(kind) is None]
    if unknown := set(names) - set(native.KINDS):
        there_are = ", ".join(native.KINDS)
        raise UsageError(f"unknown instruction set {min(unknown)!r}; there are: {there_are}")
    chosen: list[NativeKernels] = [kind for kind in native.KINDS if kind in names]
    for kernels in chosen:
        if reason := native.unavailable_reason(kernels):
            raise UsageError(f"{kernels}: {reason}")
    return chosen


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
    chosen = chosen_sets(sets)
    count = choose_threads(threads)
    native.set_threads(count)
    torch.set_num_threads(1)
    batch = FAST.batch_size
    images, labels = torch.randn(batch, 1, 28, 28), torch.randint(10, (batch,))
    measured = [Measured.of(kernels, images, labels) for kernels in chosen]
    for _ in range(rounds):
        for each in random.sample(measured, len(measured)):
            each.measure()
    print(f"{count} threads, {rounds} rounds; medians, least and most")
    print(f"{'set':<12} {'images/s':>28} {'GFLOP/s limit':>28} {'share of it':>20}")
    for each in measured:
        limits = [limit / 1e9 for limit in each.limits]
        print(f"{each.kernels:<12} {span(each.rates)} {span(limits)} {span(each.shares, 2)}")
    return 0


def span(values: list[float], digits: int = 0) -> str:
    """``"1,234 (1,200-1,300)"``."""
    middle, least, most = (f"{v:,.{digits}f}" for v in (median(values), min(values), max(values)))
    return f"{f'{middle} ({least}-{most})':>{20 if digits else 28}}"


if __name__ == "__main__":
    sys.exit(run(app, "instruction_sets.py", sys.argv[1:]))
