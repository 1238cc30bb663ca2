"""Measures which threads, processes, precision and layout suit torch's operators on this CPU.

    .venv/bin/python scripts/torch_threads.py --rounds 5
    .venv/bin/python scripts/torch_threads.py fp32 channels_last --rounds 5

Each point is some training steps of `fast` (forward, backward, update; random images) by torch's
operators, in new processes: with all of the CPU's instructions or restricted to AVX2, in fp32 or
bf16, in either memory layout, with batch norm's groups in one pass or in a pass each, and in one
process with one thread ("1x1"), one process with a thread a core, or a one-thread process a core.
Every round runs all points once, in random order. Do not use the machine meanwhile.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated, cast

import typer

from bench.launch.supervisor import supervise
from bench.machine.cores import usable_cores
from mnist_cnn.console import run
from mnist_cnn.errors import UsageError
from mnist_cnn.rank import exit_process
from mnist_cnn.recipe import FAST, MemoryFormat, Recipe

AVX2_ONLY = ("ONEDNN_MAX_CPU_ISA=AVX2", "ATEN_CPU_CAPABILITY=avx2")
"""Variables that restrict oneDNN and torch's own loops."""
WARMUP_STEPS = 3

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One way to compute the same steps."""

    instructions: str
    """"native" or "avx2"."""
    precision: str
    layout: MemoryFormat
    passes: str
    """"one-pass", or "pass-a-group" for a forward pass for each group of batch norm."""
    processes: int
    threads: int
    """Threads of each process."""

    @property
    def label(self) -> str:
        """Words that name the point."""
        parallel = f"{self.processes}x{self.threads}"
        words = self.instructions, self.precision, self.layout, self.passes, parallel
        return " ".join(words)


def all_points(cores: int) -> list[Point]:
    """Every combination on a machine with that many cores."""
    ranks = next(n for n in range(cores, 0, -1) if FAST.batch_size % n == 0)
    parallel = dict.fromkeys([(1, 1), (1, cores), (ranks, 1)])
    layouts: tuple[MemoryFormat, ...] = ("channels_last", "contiguous")
    return [
        Point(
            instructions=instructions,
            precision=precision,
            layout=layout,
            passes=passes,
            processes=processes,
            threads=threads,
        )
        for instructions, precision, layout, passes, (processes, threads) in product(
            ("native", "avx2"), ("fp32", "bf16"), layouts, ("one-pass", "pass-a-group"), parallel
        )
    ]


@app.command()
def torch_threads(
    words: Annotated[
        list[str] | None,
        typer.Argument(help="Measure the points whose label has all these words (default: all)."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Number of measurements of a point.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Number of timed steps.")] = 15,
) -> None:
    """Print the images per second of every point: median, least and most over the rounds."""
    chosen = [p for p in all_points(usable_cores()) if set(words or []) <= set(p.label.split())]
    if not chosen:
        raise UsageError(
            f"no point has the words {' '.join(words or [])!r}; labels are like "
            f"{all_points(usable_cores())[0].label!r}"
        )
    rates: dict[Point, list[float]] = {point: [] for point in chosen}
    for seed in range(rounds):
        for point in random.Random(seed).sample(chosen, len(chosen)):
            print(f"round {seed + 1}: {point.label}", file=sys.stderr, flush=True)
            rates[point].append(measure(point, steps))
    print(table(rates))


def table(rates: dict[Point, list[float]]) -> str:
    """One line per point."""
    lines = [f"{'images per second':<52} {'n':>2} {'median':>7} {'least':>7} {'most':>7}"]
    for point, values in rates.items():
        figures = " ".join(f"{value:>7.0f}" for value in (median(values), min(values), max(values)))
        lines.append(f"{point.label:<52} {len(values):>2} {figures}")
    return "\n".join(lines)


def measure(point: Point, steps: int) -> float:
    """Images per second of a point, in new processes."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "images_per_second.json"
        arguments = ["worker", json.dumps(asdict(point)), str(steps), str(result)]
        masks = AVX2_ONLY if point.instructions == "avx2" else ()
        command = ["env", *masks, sys.executable, __file__, *arguments]
        status = supervise(command, point.processes, threads=point.threads)
        if status != 0:
            raise UsageError(f"{point.label!r} ended with status {status}; see above")
        return float(json.loads(result.read_text()))


def work(point: Point, steps: int, result: Path) -> None:
    """Be a rank of a point; the first one writes the images per second to `result`."""
    # Lazy: only a rank needs torch.
    import torch

    from bench.measure.accelerator import start_accelerator
    from bench.measure.request import ComputeRequest
    from mnist_cnn.batches import Batch
    from mnist_cnn.context import TrainingContext
    from mnist_cnn.engine.step import make_step
    from mnist_cnn.model import GroupedNetwork, MnistCnn
    from mnist_cnn.train import seeded_model

    share = FAST.batch_size // point.processes
    recipe: Recipe = replace(FAST, memory_format=point.layout)
    compute = ComputeRequest(
        device="cpu", precision=point.precision, threads=point.threads, kernels="torch"
    )
    model = seeded_model(recipe, 0).train()
    if point.passes == "pass-a-group":
        model = cast(MnistCnn, GroupedNetwork(model, recipe.norm_batch_size).train())
        recipe = replace(recipe, norm_batch_size=share)  # or the step would group it, too
    accelerator, recipe, *_ = start_accelerator(recipe, compute)
    step = make_step(model, TrainingContext(recipe, accelerator))
    batch = Batch(torch.randn(share, 1, 28, 28), torch.randint(0, 10, (share,)), weight=1.0)
    start = perf_counter()
    for index in range(WARMUP_STEPS + steps):
        if index == WARMUP_STEPS:
            start = perf_counter()
        step(batch)
        step.optimizer.step()
        step.optimizer.zero_grad()
    seconds = perf_counter() - start
    if accelerator.is_main_process:
        result.write_text(json.dumps(FAST.batch_size * steps / seconds))
    accelerator.end_training()


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        work(Point(**json.loads(sys.argv[2])), int(sys.argv[3]), Path(sys.argv[4]))
        exit_process(0)
    sys.exit(run(app, "torch_threads.py", sys.argv[1:]))
