"""Measures `predict` on pictures made of MNIST's digits: what it refuses, and what it is sure of.

    .venv/bin/python -m mnist_cnn train --recipe fast --save fast.safetensors
    .venv/bin/python scripts/pictures.py fast.safetensors --images 500

Prints how often each kind of picture (scripts/picture_kinds.py) is refused, how often the answer is
right, and how well the probability agrees with that. `--split training` uses training images, on
which the thresholds and the temperature were chosen; `--fit` prints the temperature that fits best.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from picture_kinds import BAD, GOOD, Ink, Maker

from bench.stats.intervals import proportion_interval
from mnist_cnn.console import run
from mnist_cnn.data.dataset import load
from mnist_cnn.errors import UsageError
from mnist_cnn.inference.predict import TEMPERATURE, logits_of
from mnist_cnn.inference.weights import load_weights
from mnist_cnn.model import MnistCnn

BINS = 10
"""Bins of equal width of the probability, for the calibration error."""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(slots=True)
class KindResult:
    """What was said of the pictures of one kind."""

    refusals: Counter[str] = field(default_factory=Counter)
    """Number of refusals by their reason, without what differs from picture to picture."""
    logits: list[torch.Tensor] = field(default_factory=list)
    """Of each picture that was not refused, (10,)."""
    labels: list[int] = field(default_factory=list)
    """Their right answers."""


def measure(
    kind: str,
    maker: Maker,
    images: torch.Tensor,
    labels: torch.Tensor,
    model: MnistCnn,
    count: int,
) -> KindResult:
    """Make pictures of one kind and show them to the network.

    Args:
        kind: its name, which also chooses the pictures.
        maker: makes a picture.
        images: (N, 28, 28), uint8.
        labels: (N,).
        model: trained weights.
        count: number of pictures.
    """
    random = np.random.default_rng([*kind.encode(), len(images)])
    result = KindResult()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        for _ in range(count):
            last = -1

            def draw() -> Ink:
                nonlocal last
                last = int(random.integers(0, len(images)))
                digit: Ink = images[last].numpy() / 255
                return digit

            maker(random, draw).save(path, compress_level=1)
            try:
                result.logits.append(logits_of(model, path))
            except UsageError as error:
                reason = str(error).removeprefix(f"{path} ").partition(":")[0]
                result.refusals["".join(c for c in reason if not c.isdigit())] += 1
            else:
                result.labels.append(int(labels[last]))
    return result


def calibration_error(probabilities: torch.Tensor, right: torch.Tensor) -> float:
    """The expected calibration error: the mean distance of probability and share, over bins.

    Args:
        probabilities: of the answers, (N,).
        right: whether they are right, (N,).

    Source: Guo et al., "On calibration of modern neural networks" (2017).
    """
    bins = (probabilities * BINS).long().clamp(max=BINS - 1)
    error = 0.0
    for number in range(BINS):
        inside = bins == number
        if inside.any():
            gap = probabilities[inside].mean() - right[inside].double().mean()
            error += float(gap.abs()) * float(inside.double().mean())
    return error


def best_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The temperature with the highest likelihood.

    Args:
        logits: (N, 10).
        labels: (N,).
    """
    candidates = torch.arange(0.5, 3.0, 0.01)
    losses = [torch.nn.functional.cross_entropy(logits / t, labels) for t in candidates]
    return float(candidates[int(torch.stack(losses).argmin())])


def share(count: int, total: int) -> str:
    """A share in percent, with its 95 % interval."""
    estimate = proportion_interval(count, total)
    assert estimate.low is not None
    assert estimate.high is not None
    return f"{100 * estimate.value:.1f} ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"


def table(results: dict[str, KindResult], count: int) -> str:
    """One line per kind: its refusals, and the right answers among the others."""
    lines = ["| pictures | refused % | right of the answered % |", "|---|---|---|"]
    for kind, result in results.items():
        refused = count - len(result.labels)
        right = "–"
        if kind in GOOD and result.labels:
            answers = torch.stack(result.logits).argmax(1)
            right = share(int((answers == torch.tensor(result.labels)).sum()), len(result.labels))
        lines.append(f"| {kind} | {share(refused, count)} | {right} |")
    return "\n".join(lines)


@app.command()
def pictures(
    weights: Annotated[Path, typer.Argument(help="Weights that train --save has written.")],
    images: Annotated[int, typer.Option(min=1, help="Number of pictures of each kind.")] = 500,
    split: Annotated[str, typer.Option(help="Digits to use: training or test.")] = "test",
    kinds: Annotated[str, typer.Option(help="Only the kinds with these letters.")] = "",
    fit: Annotated[bool, typer.Option("--fit", help="Print the best temperature.")] = False,
) -> None:
    """Print how often each kind of picture is refused, and how good the probabilities are."""
    if split not in ("training", "test"):
        raise UsageError(f"--split must be training or test, not {split!r}")
    torch.set_num_threads(1)  # one small image at a time
    model, data = load_weights(weights), load()
    digits = (data.train_images, data.train_labels)
    if split == "test":
        digits = (data.test_images, data.test_labels)
    results: dict[str, KindResult] = {}
    for kind, maker in {**GOOD, **BAD}.items():
        if kinds in kind:
            results[kind] = measure(kind, maker, *digits, model, images)
            print(f"{kind}: {dict(results[kind].refusals)}", file=sys.stderr)
    print(table(results, images))
    good = [results[kind] for kind in GOOD if kind in results]
    labels = torch.tensor([label for result in good for label in result.labels])
    if not len(labels):
        return
    logits = torch.stack([row for result in good for row in result.logits])
    for name, temperature in (("without", 1.0), ("with", TEMPERATURE)):
        probabilities, answers = (logits / temperature).softmax(1).max(1)
        error = calibration_error(probabilities.double(), answers == labels)
        loss = torch.nn.functional.cross_entropy(logits / temperature, labels)
        print(
            f"{name} the temperature ({temperature:g}): calibration error {100 * error:.2f} %, "
            f"mean probability {100 * probabilities.mean():.2f} %, "
            f"right {share(int((answers == labels).sum()), len(labels))} % of {len(labels):,}, "
            f"log loss {loss:.4f}"
        )
    if fit:
        print(f"best temperature: {best_temperature(logits, labels):.2f}")


if __name__ == "__main__":
    sys.exit(run(app, "pictures.py", sys.argv[1:]))
