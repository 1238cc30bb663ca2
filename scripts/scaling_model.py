"""The model of docs/scaling.md: how long a step takes on more processes.

Fitted to docs/scaling.json (by scripts/scaling_steps.py) and to what docs/speed.md has of an H200;
what it comes to, scripts/scaling_page.py puts on the page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from scipy.optimize import nnls

GRADIENT_BYTES = 17_506 * 4


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

    def alone(self, kernels: str) -> dict[int, list[tuple[float, float]]]:
        """(images, seconds) of a step of one process and thread, by round."""
        points: dict[int, list[tuple[float, float]]] = {}
        for step in self.found["measured"]:
            if step["mode"] == "alone" and step.get("kernels") == kernels:
                point = step["batch"], max(step["seconds"])
                points.setdefault(step["round"], []).append(point)
        return points


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
    fixed_seconds: tuple[float, float]
    """The least and the most of the worker's, by the steps of one round each."""
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
    alone = measured.alone(kernels)
    fixed, image = line([point for points in alone.values() for point in points])
    by_round = [line(points)[0] for points in alone.values()]
    reduced = [seconds for size, seconds in measured.all_reduce() if size == GRADIENT_BYTES]
    return Fit(
        alone=typical("alone", BATCH),
        share_alone=share_alone,
        share_beside=share_beside,
        joined=typical("joined", BATCH),
        threads=typical("threads", BATCH),
        worker=Worker(fixed, image, share_beside / share_alone),
        fixed_seconds=(min(by_round), max(by_round)),
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
