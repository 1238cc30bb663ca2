"""The model of docs/scaling.md: how long a step takes on more processes, and what that comes to.

    .venv/bin/python scripts/scaling_model.py            # its tables
    .venv/bin/python scripts/scaling_model.py --write    # in place, in docs/scaling.md

Computed from docs/scaling.json (by scripts/scaling_steps.py), from the records in results/, and
from what others published; nothing is measured here.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from scipy.optimize import nnls

from bench import stats, store
from bench.notation import plural
from bench.records import LapKind, RunRecord
from mnist_cnn.console import run

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "scaling.md"
MEASUREMENTS = ROOT / "docs" / "scaling.json"
BLOCK = re.compile(r"(<!-- computed: (\w+) -->\n).*?(<!-- end of computed -->\n)", re.DOTALL)
GRADIENT_BYTES = 17_506 * 4
COUNTS = (1, 2, 4, 8, 16, 32)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class Worker:
    """What computes a share of a batch: a core, or a GPU."""

    fixed_seconds: float
    """Of a step, whatever its images."""
    image_seconds: float
    """Of each image of its share."""
    neighbours: float = 1.0
    """How many times as long its work takes while others on the same machine do theirs."""


@dataclass(frozen=True, slots=True)
class Link:
    """What an all-reduce crosses."""

    message_seconds: float
    """From one worker to another, software included, of a message of no size."""
    bytes_per_second: float


def all_reduce_seconds(workers: int, size: float, link: Link) -> float:
    """The least an all-reduce takes: recursive halving and doubling, nothing else on the link.

    Source: Thakur, Rabenseifner & Gropp, "Optimization of Collective Communication Operations in
    MPICH" (2005), section 4.5, without its additions.
    """
    if workers == 1:
        return 0.0
    messages = 2 * math.ceil(math.log2(workers))
    moved = 2 * (workers - 1) / workers * size
    return messages * link.message_seconds + moved / link.bytes_per_second


def step_seconds(worker: Worker, batch: float, workers: int, link: Link) -> float:
    """A step of a global batch shared by so many workers; communication overlaps nothing."""
    own = worker.fixed_seconds + worker.image_seconds * batch / workers
    beside = worker.neighbours if workers > 1 else 1.0
    return own * beside + all_reduce_seconds(workers, GRADIENT_BYTES, link)


def fastest(seconds: Callable[[int], float], most: int = 1024) -> int:
    """The number of workers, of the powers of two up to `most`, with the shortest step."""
    return min((1 << power for power in range(most.bit_length())), key=seconds)


def line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Intercept and slope, neither below 0, through (x, y), by least squares of shares of y."""
    x, y = (np.array(values, dtype=float) for values in zip(*points, strict=True))
    matrix = np.stack([1 / y, x / y], axis=1)
    (intercept, slope), _ = nnls(matrix, np.ones(len(y)))
    return float(intercept), float(slope)


@dataclass(frozen=True, slots=True)
class Measured:
    """docs/scaling.json, by what was asked."""

    found: Mapping[str, Any]

    def seconds(
        self, mode: str, kernels: str, batch: int, options: str | None = None
    ) -> list[float]:
        """Of a step, one a round: the slowest rank's."""
        asked = (mode, kernels, batch, options)
        return [
            max(step["seconds"])
            for step in sorted(self.found["measured"], key=lambda step: step["round"])
            if tuple(map(step.get, ("mode", "kernels", "batch", "options"))) == asked
        ]

    @property
    def options(self) -> list[str]:
        """Of DistributedDataParallel, that were tried."""
        found = (step.get("options") for step in self.found["measured"])
        return sorted({name for name in found if name})

    def all_reduce(self) -> list[tuple[float, float]]:
        """(bytes, seconds) of every round: the slowest rank's."""
        steps = (step for step in self.found["measured"] if "bytes" in step)
        return [(step["bytes"], max(step["seconds"])) for step in steps]

    @property
    def kernels(self) -> list[str]:
        """What computed steps, in the order of a table."""
        return sorted({step["kernels"] for step in self.found["measured"] if "kernels" in step})

    @property
    def processes(self) -> int:
        """That worked at once: a core each."""
        return int(self.found["processes"])

    def alone(self, kernels: str) -> list[tuple[float, float]]:
        """(images, seconds) of a step of one process and thread, every round."""
        return [
            (step["batch"], max(step["seconds"]))
            for step in self.found["measured"]
            if step["mode"] == "alone" and step.get("kernels") == kernels
        ]


BATCH = 128
"""Images of the steps that were measured in several processes."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The model's parameters for one kind of step on this machine."""

    alone: float
    """Seconds of a step of all images, by one process of one thread."""
    share_alone: float
    """Of its share of them."""
    share_beside: float
    """The same, while the other processes do theirs."""
    joined: float
    """Seconds of the step that all make together."""
    threads: float
    """Of the step by one process with a thread a core."""
    worker: Worker
    all_reduce: float
    """Seconds, measured."""

    @property
    def predicted(self) -> float:
        """What the step that all make together should take."""
        return self.share_beside + self.all_reduce


def fitted(measured: Measured, kernels: str) -> Fit:
    """Medians over rounds, and the line through the steps of one process alone."""
    share = BATCH // measured.processes

    def typical(mode: str, batch: int) -> float:
        return median(measured.seconds(mode, kernels, batch))

    share_alone, share_beside = typical("alone", share), typical("beside", share)
    fixed, image = line(measured.alone(kernels))
    reduced = [seconds for size, seconds in measured.all_reduce() if size == GRADIENT_BYTES]
    return Fit(
        alone=typical("alone", BATCH),
        share_alone=share_alone,
        share_beside=share_beside,
        joined=typical("joined", BATCH),
        threads=typical("threads", BATCH),
        worker=Worker(fixed, image, share_beside / share_alone),
        all_reduce=median(reduced),
    )


def loopback(measured: Measured) -> Link:
    """Between processes of this machine, by gloo, from all-reduces of several sizes."""
    p = measured.processes
    intercept, slope = line(measured.all_reduce())
    return Link(intercept / (2 * math.ceil(math.log2(p))), 2 * (p - 1) / p / slope)


H200_ROWS = (
    (128, 24, 0.1, 0.29),
    (128, 28, 0.1, 0.34),
    (128, 32, 0.1, 0.39),
    (256, 28, 0.1, 0.25),
    (256, 28, 0.1, 0.26),
    (256, 32, 0.1, 0.30),
    (256, 24, 0.15, 0.32),
)
"""Of docs/speed.md, "On a GPU": images a step, epochs, share of 50,000 images, seconds."""
H200_TRAIN_SECONDS = 0.255
"""Of a run of `fast-gpu`, median of forty; with what is read and copied before, and evaluated."""
H200_READ_SECONDS = 0.079
H200_EVALUATE_SECONDS = 0.002
H200_BATCH = 256
H200_EPOCHS = 28
H200_STEPS = H200_EPOCHS * math.ceil(6_000 / H200_BATCH)


def h200() -> Worker:
    """One H200: the share of a step that images have no part in by the rows, its level by the runs.

    The rows' kernels were slower than the forty runs', by a seventh.
    """
    steps, images, seconds = [], [], []
    for batch, epochs, share, took in H200_ROWS:
        steps.append(epochs * math.ceil(50_000 * share / batch))
        images.append(epochs * 50_000 * share)
        seconds.append(took)
    matrix = np.stack([np.array(steps), np.array(images)], axis=1)
    fixed, image = np.linalg.lstsq(matrix, np.array(seconds), rcond=None)[0]
    level = H200_TRAIN_SECONDS / H200_STEPS / (fixed + image * H200_BATCH)
    return Worker(float(fixed * level), float(image * level))


NVLINK = Link(3e-6, 100e9)
"""An all-reduce of two H100 in a CUDA graph takes about 6 us up to 64 kB, NVLink SHARP:
https://github.com/NVIDIA/nccl/issues/1259"""
INFINIBAND = Link(10e-6, 20e9)
"""19 to 20 us for 8 bytes between two nodes, HDR: https://github.com/NVIDIA/nccl-tests/issues/150"""
ETHERNET = Link(50e-6, 1.25e9)
"""Assumed: TCP by 10 Gb/s, 50 us a message with its software."""


@dataclass(frozen=True, slots=True)
class Published:
    """A pair of DAWNBench entries of one author: one GPU, and several."""

    who: str
    gpus: int
    batch: tuple[int, int] | None
    """Images a step, of one GPU and of all; None where the entry does not say."""
    epoch_seconds: tuple[float, float]
    epochs: tuple[int, int]
    """To 94 %."""


HOUR = 3600
PUBLISHED = (
    Published(
        "fast.ai, wide ResNet",
        8,
        None,
        ((0.12456993 - 0.00535957) / 29 * HOUR, (0.05353704 - 0.00273068) / 39 * HOUR),
        (27, 36),
    ),
    Published(
        "Kakao Brain, ResNet-9",
        4,
        (500, 2000),
        ((0.01584601 - 0.00063263) / 24 * HOUR, (0.01050415 - 0.00028626) / 34 * HOUR),
        (25, 34),
    ),
    Published(
        "Baidu, ResNet-9",
        8,
        (512, 1024),
        ((0.01994991 - 0.00148373) / 23 * HOUR, (0.01343083 - 0.00068544) / 23 * HOUR),
        (24, 22),
    ),
)
"""From the entries' logs of hours after each epoch, the first epoch left out:
https://github.com/stanford-futuredata/dawn-bench-entries, CIFAR10/train"""
CIFAR10_IMAGES = 50_000
RESNET9_BYTES = 6_573_130 * 2
"""Gradients of the ResNet-9 that both start from, in fp16."""
V100_NVLINK = Link(5e-6, 100e9)
"""Assumed."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown: the first column is text, the others numbers."""
    rule = ["---", *("---:" for _ in head[1:])]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, rule, *rows))


def ms(seconds: float) -> str:
    """Milliseconds with three digits, or what there is of them."""
    value = 1e3 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def machine(measured: Measured) -> str:
    """What was measured, when, and how often."""
    about = measured.found["machine"]
    rounds = 1 + max(step["round"] for step in measured.found["measured"])
    return (
        f"{about['cpu']}, {about['usable_cores']} cores"
        f"{' of a virtual machine' if about['virtual_machine'] else ''}, PyTorch {about['torch']}, "
        f"{measured.found['date']}, {rounds} {'round' if rounds == 1 else 'rounds'} "
        "([measurements](scaling.json)).\n"
    )


def shares(measured: Measured) -> str:
    """Where the second process's half goes."""
    rows = []
    for kernels in measured.kernels:
        fit = fitted(measured, kernels)
        lost = (
            fit.alone / measured.processes,
            fit.share_alone - fit.alone / measured.processes,
            fit.share_beside - fit.share_alone,
            fit.all_reduce,
            fit.joined - fit.predicted,
            fit.joined,
        )
        rows.append([kernels, ms(fit.alone), *map(ms, lost)])
    return table(
        (
            "ms a step",
            "alone",
            "ideal",
            "smaller share",
            "neighbours",
            "all-reduce",
            "waiting",
            "joined",
        ),
        rows,
    )


def ratios(measured: Measured) -> str:
    """How many times as fast, predicted and measured, and beside it threads."""
    rows = []
    for kernels in measured.kernels:
        fit = fitted(measured, kernels)
        joined = [
            one / all_
            for one, all_ in zip(
                measured.seconds("alone", kernels, BATCH),
                measured.seconds("joined", kernels, BATCH),
                strict=True,
            )
        ]
        worker = fit.worker
        rows.append(
            [
                kernels,
                f"{fit.alone / fit.predicted:.2f}",
                f"{fit.alone / fit.joined:.2f} ({min(joined):.2f}-{max(joined):.2f})",
                f"{fit.alone / fit.threads:.2f}",
                ms(worker.fixed_seconds),
                f"{1e6 * worker.image_seconds:.0f}",
                f"{worker.neighbours:.2f}",
            ]
        )
    return table(
        (
            f"{measured.processes} processes over one",
            "predicted",
            "measured (range)",
            "threads instead",
            "fixed ms",
            "us an image",
            "neighbours",
        ),
        rows,
    )


def options(measured: Measured) -> str:
    """What DistributedDataParallel's options are worth, round by round."""
    plain = measured.seconds("joined", "torch", BATCH)
    rows = []
    for name in measured.options:
        times = [
            before / after
            for before, after in zip(
                plain, measured.seconds("joined", "torch", BATCH, name), strict=True
            )
        ]
        rows.append([name, f"{median(times):.2f}", f"{min(times):.2f}-{max(times):.2f}"])
    return table(("option", "times as fast", "range"), rows)


def _speedups(worker: Worker, batch: int, link: Link) -> list[str]:
    def seconds(count: int) -> float:
        return step_seconds(worker, batch, count, link)

    best = fastest(seconds)
    return [
        *(f"{seconds(1) / seconds(count):.2f}" for count in COUNTS[1:]),
        f"{best}: {seconds(1) / seconds(best):.2f}",
        f"{seconds(1) / worker.fixed_seconds:.1f}" if worker.fixed_seconds > 0 else "-",
    ]


def strong(measured: Measured) -> str:
    """Speed-ups of a step whose global batch stays what it is."""
    here = loopback(measured)
    compiled = measured.kernels[0]
    core = fitted(measured, compiled).worker
    apart = Worker(core.fixed_seconds, core.image_seconds)
    systems = (
        (f"cores of one machine ({compiled}), 128 images", core, BATCH, here),
        (f"machines of one core each ({compiled}), 10 Gb/s", apart, BATCH, ETHERNET),
        ("H200s, NVLink, 256 images", h200(), H200_BATCH, NVLINK),
        ("H200s, a node each, InfiniBand", h200(), H200_BATCH, INFINIBAND),
        ("H200s, a node each, 10 Gb/s", h200(), H200_BATCH, ETHERNET),
    )
    rows = [[name, *_speedups(worker, batch, link)] for name, worker, batch, link in systems]
    return table(
        ("a step's speed-up on", *map(str, COUNTS[1:]), "most, at", "bound"),
        rows,
    )


def weak(measured: Measured) -> str:
    """Efficiency where every worker keeps a whole batch of the recipe's: images, not accuracy."""
    compiled = measured.kernels[0]
    core = fitted(measured, compiled).worker
    systems = (
        (f"cores of one machine ({compiled})", core, BATCH, loopback(measured)),
        ("H200s, NVLink", h200(), H200_BATCH, NVLINK),
        ("H200s, a node each, 10 Gb/s", h200(), H200_BATCH, ETHERNET),
    )
    rows = []
    for name, worker, batch, link in systems:
        one = step_seconds(worker, batch, 1, link)
        rows.append(
            [
                name,
                *(f"{one / step_seconds(worker, batch * n, n, link):.0%}" for n in COUNTS[1:]),
            ]
        )
    return table(("images a second, as a share of the ideal", *map(str, COUNTS[1:])), rows)


def whole() -> str:
    """A run of `fast-gpu` on several H200s: what no GPU shortens is part of it."""
    worker = h200()
    one = H200_READ_SECONDS + H200_TRAIN_SECONDS + H200_EVALUATE_SECONDS
    rows = []
    for count in COUNTS[:4]:
        train = H200_STEPS * step_seconds(worker, H200_BATCH, count, NVLINK)
        total = H200_READ_SECONDS + train + H200_EVALUATE_SECONDS / count
        rows.append([str(count), f"{train:.3f}", f"{total:.3f}", f"{one / total:.2f}"])
    return table(("H200s", "training, s", "to 99.4 %, s", "times"), rows)


def published() -> str:
    """What others' second to eighth GPU brought."""
    rows = []
    for entry in PUBLISHED:
        one, several = entry.epoch_seconds
        if entry.batch:
            before, after = entry.batch
            alone = one / (CIFAR10_IMAGES / before)
            # All of it as if it were the images': what speaks most for further GPUs.
            worker = Worker(0.0, alone / before)
            step = worker.image_seconds * after / entry.gpus
            step += all_reduce_seconds(entry.gpus, RESNET9_BYTES, V100_NVLINK)
            links = f"{one / (step * CIFAR10_IMAGES / after):.1f}"
        else:
            links = "-"
        times = one * entry.epochs[0] / (several * entry.epochs[1])
        rows.append(
            [
                entry.who,
                f"1, {entry.gpus}",
                "{}, {}".format(*entry.batch) if entry.batch else "-",
                f"{one:.2f}, {several:.2f}",
                f"{one / several:.1f}",
                links,
                "{}, {}".format(*entry.epochs),
                f"{times:.1f}",
            ]
        )
    return table(
        (
            "94 % on CIFAR-10",
            "V100s",
            "images a step",
            "s an epoch",
            "times",
            "by links alone",
            "epochs",
            "whole, times",
        ),
        rows,
    )


def records() -> str:
    """Two one-thread processes over one of two threads, by our records of the Xeon's road."""
    pairs = (
        ("plain: fp32, torchvision's loader", "plain", "plain, 2 processes"),
        ("resident, bf16, torch's operators", "resident, bf16", "resident, bf16, 2 processes"),
        ("compiled, by dot products", "avx512", "avx512, 2 processes"),
        ("compiled, by tiles", "amx", "amx, 2 processes"),
    )
    by_label: dict[str, dict[int, float]] = {}
    for _, record in store.read([ROOT / "results" / "intel-xeon-2-cores-road"]).records:
        seconds = stats.seconds_of(record, LapKind.TRAIN)
        if record.counts and record.label and seconds is not None:
            by_label.setdefault(record.label, {})[record.seed] = seconds
    rows = []
    for name, threads, processes in pairs:
        values = [by_label[threads][seed] / by_label[processes][seed] for seed in by_label[threads]]
        rows.append(
            [
                name,
                f"{median(values):.2f}",
                f"{min(values):.2f}-{max(values):.2f}",
                str(len(values)),
            ]
        )
    return table(("two processes over two threads, Xeon", "times", "range", "n"), rows)


RUNS = ROOT / "results" / "amd-epyc-2-cores-scaling"


def runs() -> str:
    """Whole runs of `fast`, seed by seed against one process with a thread a core."""
    found: dict[tuple[int, int], dict[int, RunRecord]] = {}
    for _, record in store.read([RUNS]).records:
        if record.counts:
            key = record.setup.processes, record.setup.threads
            found.setdefault(key, {})[record.seed] = record
    base = found[1, 2]
    rows = []
    for (processes, threads), of in sorted(found.items()):
        trained = {seed: _trained(record) for seed, record in of.items()}
        reached = [stats.time_to_target_seconds(record) for record in of.values()]
        times = stats.summarise([trained[seed] / _trained(base[seed]) for seed in of])
        accuracies = [record.final_accuracy or 0.0 for record in of.values()]
        rows.append(
            [
                f"{plural(processes, 'process')}, {plural(threads, 'thread')} each",
                f"{median(math.inf if r is None else r for r in reached):.1f}",
                f"{median(trained.values()):.1f}",
                "1" if of is base else f"{times.mean:.2f} ({times.low:.2f}-{times.high:.2f})",
                f"{100 * sum(accuracies) / len(accuracies):.2f} %",
                f"{sum(r is not None for r in reached)}/{len(of)}",
            ]
        )
    return table(
        ("`fast`", "to 99.4 %, s", "training, s", "times as long", "accuracy", "reached"), rows
    )


def _trained(record: RunRecord) -> float:
    return stats.seconds_of(record, LapKind.TRAIN) or math.nan


def tables(measured: Measured) -> Iterator[tuple[str, str]]:
    """Every table by the name that docs/scaling.md has for its place."""
    link = loopback(measured)
    yield "machine", machine(measured)
    yield "shares", shares(measured)
    yield "ratios", ratios(measured)
    yield (
        "link",
        f"One message takes {1e6 * link.message_seconds:.0f} us, a byte "
        f"{1e9 / link.bytes_per_second:.2f} ns ({link.bytes_per_second / 1e9:.1f} GB/s).\n",
    )
    yield "options", options(measured)
    yield "strong", strong(measured)
    yield "weak", weak(measured)
    yield "whole", whole()
    yield "runs", runs()
    yield "records", records()
    yield "published", published()


def with_tables(text: str, computed: Mapping[str, str]) -> str:
    """A document with its computed parts as they should be."""
    return BLOCK.sub(lambda found: f"{found[1]}{computed[found[2]]}{found[3]}", text)


@app.command()
def model(
    write: Annotated[bool, typer.Option("--write", help="Into docs/scaling.md.")] = False,
) -> None:
    """Print the model's tables, or put them where they belong."""
    computed = dict(tables(Measured(json.loads(MEASUREMENTS.read_text(encoding="utf-8")))))
    if write:
        text = DOCUMENT.read_text(encoding="utf-8")
        DOCUMENT.write_text(with_tables(text, computed), encoding="utf-8")
    else:
        print("\n".join(f"{name}\n\n{text}" for name, text in computed.items()), end="")


if __name__ == "__main__":
    sys.exit(run(app, "scaling_model.py", sys.argv[1:]))
