"""Measures `predict` on pictures made of MNIST's digits: what it refuses, and what it is sure of.

    .venv/bin/python -m mnist_cnn train --recipe fast --save fast.safetensors
    .venv/bin/python scripts/pictures.py fast.safetensors --images 500

Each kind of picture is made of real digits: on a larger sheet, turned, noisy, faint; or with
something that makes an answer impossible: several digits, frames, lines, a digit cut off. Prints
how often each kind is refused, how often the answer is right, and how well the probability agrees
with that. `--split training` uses training images, on which the thresholds and the temperature
were chosen; `--fit` prints the temperature that fits best.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
import typer
from PIL import Image, ImageFilter

from bench.stats.intervals import proportion_interval
from mnist_cnn.console import run
from mnist_cnn.data.dataset import load
from mnist_cnn.errors import UsageError
from mnist_cnn.inference.predict import TEMPERATURE, logits_of
from mnist_cnn.inference.weights import load_weights
from mnist_cnn.model import MnistCnn

Ink = npt.NDArray[np.float64]
"""Ink of each pixel, 0 to 1, (height, width)."""
Random = np.random.Generator
Digits = Callable[[], Ink]
"""Draws a digit at random, as MNIST has it: 28 x 28."""

BINS = 10
"""Bins of equal width of the probability, for the calibration error."""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def cropped(digit: Ink) -> Ink:
    """A digit without its margin."""
    rows, columns = np.nonzero(digit > 0.1)
    return digit[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def resized(ink: Ink, factor: float) -> Ink:
    """Enlarged or made smaller."""
    height, width = ink.shape
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    picture = Image.fromarray((255 * ink).astype(np.uint8))
    return np.asarray(picture.resize(size, Image.Resampling.BICUBIC)) / 255


def turned(ink: Ink, degrees: float) -> Ink:
    """Turned anticlockwise, with room for its corners."""
    picture = Image.fromarray((255 * ink).astype(np.uint8))
    return np.asarray(picture.rotate(degrees, Image.Resampling.BICUBIC, expand=True)) / 255


def sheet_with(random: Random, ink: Ink, margin: float = 0.25) -> tuple[Ink, tuple[int, int]]:
    """A digit at a random place of a sheet, and the place of its upper left corner.

    Args:
        random: draws size and place.
        ink: the digit, without a margin.
        margin: smallest margin on each side, as a share of the digit's longer side.
    """
    height, width = ink.shape
    least = round(margin * max(height, width))
    room = [int(random.integers(0, 2 * max(height, width))) for _ in range(2)]
    sheet = np.zeros((height + 2 * least + room[0], width + 2 * least + room[1]))
    top, left = (least + int(random.integers(0, extra + 1)) for extra in room)
    sheet[top : top + height, left : left + width] = ink
    return sheet, (top, left)


def enlarged(random: Random, digit: Ink) -> Ink:
    """A digit without margin, 60 to 200 pixels high."""
    ink = cropped(digit)
    return resized(ink, random.uniform(60, 200) / max(ink.shape))


def shot(
    random: Random, ink: Ink, contrast: float = 0.8, noise: float = 0.01, gradient: float = 0.1
) -> Image.Image:
    """The picture of a sheet: dark or light ink, noise, light that falls from one side."""
    height, width = ink.shape
    angle = random.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light = gradient * (np.cos(angle) * x + np.sin(angle) * y) / 2
    if random.random() < 0.5:
        brightness = 0.92 - gradient / 2 + light - contrast * ink
    else:
        brightness = 0.08 + gradient / 2 + light + contrast * ink
    brightness = brightness + random.normal(0, noise, ink.shape)
    return Image.fromarray((255 * brightness.clip(0, 1)).round().astype(np.uint8))


def plain(random: Random, digits: Digits) -> Image.Image:
    """A scan: a digit on a larger sheet."""
    return shot(random, sheet_with(random, enlarged(random, digits()))[0])


def rotated(random: Random, digits: Digits) -> Image.Image:
    """Turned by up to 20 degrees."""
    ink = cropped(turned(resized(digits(), 5), random.uniform(-20, 20)))
    return shot(random, sheet_with(random, ink)[0])


def noisy(random: Random, digits: Digits) -> Image.Image:
    """As by a camera in the dark: noise of 3 to 10 % of black against white."""
    ink = sheet_with(random, enlarged(random, digits()))[0]
    return shot(random, ink, contrast=0.7, noise=random.uniform(0.03, 0.1))


def faint(random: Random, digits: Digits) -> Image.Image:
    """A pencil: 20 to 40 % of black against white."""
    ink = sheet_with(random, enlarged(random, digits()))[0]
    return shot(random, ink, contrast=random.uniform(0.2, 0.4))


def lit(random: Random, digits: Digits) -> Image.Image:
    """Light that falls from one side."""
    ink = sheet_with(random, enlarged(random, digits()))[0]
    return shot(random, ink, contrast=0.4, gradient=random.uniform(0.2, 0.45))


def blurred(random: Random, digits: Digits) -> Image.Image:
    """Out of focus."""
    ink = sheet_with(random, enlarged(random, digits()))[0]
    radius = random.uniform(0.01, 0.03) * max(ink.shape)
    return shot(random, ink).filter(ImageFilter.GaussianBlur(radius))


def small(random: Random, digits: Digits) -> Image.Image:
    """14 to 28 pixels high."""
    ink = cropped(digits())
    ink = resized(ink, random.uniform(14, 28) / max(ink.shape))
    return shot(random, sheet_with(random, ink)[0])


def sheared(random: Random, digits: Digits) -> Image.Image:
    """Slanted, as in another hand, by up to 0.3."""
    picture = Image.fromarray((255 * resized(np.pad(digits(), 8), 5)).astype(np.uint8))
    slant = random.uniform(-0.3, 0.3)
    data = (1, slant, -slant * picture.height / 2, 0, 1, 0)
    slanted = picture.transform(
        picture.size, Image.Transform.AFFINE, data, Image.Resampling.BICUBIC
    )
    return shot(random, sheet_with(random, cropped(np.asarray(slanted) / 255))[0])


def tight(random: Random, digits: Digits) -> Image.Image:
    """Cropped to the digit, without any margin."""
    return shot(random, enlarged(random, digits()), noise=0.0, gradient=0.0)


def side_by_side(random: Random, digits: Digits) -> Image.Image:
    """Two digits beside each other, 20 to 60 % of their height apart."""
    return shot(random, sheet_with(random, _row(random, [digits(), digits()]))[0])


def three(random: Random, digits: Digits) -> Image.Image:
    """Three digits beside each other."""
    return shot(random, sheet_with(random, _row(random, [digits() for _ in range(3)]))[0])


def stacked(random: Random, digits: Digits) -> Image.Image:
    """Two digits, one above the other."""
    both = _row(random, [np.rot90(digits()), np.rot90(digits())])
    return shot(random, sheet_with(random, np.rot90(both, -1))[0])


def touching(random: Random, digits: Digits) -> Image.Image:
    """Two digits that touch."""
    first, second = (resized(cropped(digits()), 5) for _ in range(2))
    row = _row(random, [first, second], gaps=(-0.1, -0.02), factor=1)
    return shot(random, sheet_with(random, row)[0])


def _row(
    random: Random,
    digits: Sequence[Ink],
    gaps: tuple[float, float] = (0.2, 0.6),
    factor: float = 5,
) -> Ink:
    """Digits in a row; gaps are shares of the height."""
    inks = [resized(cropped(digit), factor) for digit in digits]
    height = max(ink.shape[0] for ink in inks)
    width = sum(ink.shape[1] for ink in inks) + len(inks) * height
    sheet, left = np.zeros((height, width)), 0
    for ink in inks:
        top = int(random.integers(0, height - ink.shape[0] + 1))
        place = np.s_[top : top + ink.shape[0], left : left + ink.shape[1]]
        sheet[place] = np.maximum(sheet[place], ink)
        left = max(0, left + ink.shape[1] + round(random.uniform(*gaps) * height))
    return cropped(sheet)


def framed(random: Random, digits: Digits) -> Image.Image:
    """A box drawn around the digit."""
    ink, _ = sheet_with(random, enlarged(random, digits()), margin=0.4)
    side = max(ink.shape) // 3
    pen = max(1, round(side * random.uniform(0.02, 0.08)))
    rows, columns = (np.flatnonzero(ink.max(axis=axis) > 0.1) for axis in (1, 0))
    space = round(0.1 * side) + pen
    outer = np.s_[
        rows[0] - space : rows[-1] + 1 + space, columns[0] - space : columns[-1] + 1 + space
    ]
    frame = np.ones_like(ink[outer])
    frame[pen:-pen, pen:-pen] = 0
    ink[outer] = np.maximum(ink[outer], frame)
    return shot(random, ink)


def bordered(random: Random, digits: Digits) -> Image.Image:
    """A frame at the border of the picture, as of a box on a form."""
    ink = sheet_with(random, enlarged(random, digits()))[0]
    pen = max(1, round(max(ink.shape) * random.uniform(0.01, 0.04)))
    framed_ink = np.ones_like(ink)
    framed_ink[pen:-pen, pen:-pen] = ink[pen:-pen, pen:-pen]
    return shot(random, framed_ink)


def ruled(random: Random, digits: Digits) -> Image.Image:
    """Paper with lines, slightly turned."""
    return shot(random, _on_lines(random, digits, both=False))


def squared(random: Random, digits: Digits) -> Image.Image:
    """Paper with squares, slightly turned."""
    return shot(random, _on_lines(random, digits, both=True))


def _on_lines(random: Random, digits: Digits, *, both: bool) -> Ink:
    ink = sheet_with(random, enlarged(random, digits()))[0]
    y, x = np.mgrid[: ink.shape[0], : ink.shape[1]]
    angle = np.deg2rad(random.uniform(-3, 3))
    digit_height = np.count_nonzero(ink.max(axis=1) > 0.1)
    spacing = random.uniform(0.3, 1.0) * digit_height
    pen, dark = max(1.0, 0.03 * digit_height), random.uniform(0.3, 0.8)
    lines = (y * np.cos(angle) + x * np.sin(angle)) % spacing < pen
    if both:
        lines |= (x * np.cos(angle) - y * np.sin(angle)) % spacing < pen
    on_lines: Ink = np.maximum(ink, dark * lines)
    return on_lines


def cut_off(random: Random, digits: Digits) -> Image.Image:
    """A digit of which 15 to 50 % lie beyond one border of the picture."""
    ink, (top, _) = sheet_with(random, enlarged(random, digits()))
    height = np.count_nonzero(ink.max(axis=1) > 0.1)
    rest = ink[top + round(height * random.uniform(0.15, 0.5)) :]
    return shot(random, np.rot90(rest, _turn(random)))


def _turn(random: Random) -> int:
    return int(random.integers(0, 4))


def desk(random: Random, digits: Digits) -> Image.Image:
    """The edge of the paper, and a dark desk beside it."""
    ink = np.rot90(sheet_with(random, enlarged(random, digits()), margin=0.5)[0], _turn(random))
    rows = np.flatnonzero(ink.max(axis=1) > 0.1)
    ink = ink.copy()
    ink[: max(2, round(rows[0] * random.uniform(0.2, 0.6)))] = random.uniform(0.4, 1.0)
    return shot(random, np.rot90(ink, _turn(random)), gradient=0.02)


def too_faint(random: Random, digits: Digits) -> Image.Image:
    """Ink that is hardly darker than the noise of the paper."""
    ink = sheet_with(random, enlarged(random, digits()))[0]
    noise = random.uniform(0.02, 0.06)
    return shot(random, ink, contrast=noise * random.uniform(0.5, 2.0), noise=noise)


def nothing(random: Random, _: Digits) -> Image.Image:
    """Paper, with light from one side."""
    return shot(random, np.zeros((200, 260)), noise=random.uniform(0.0, 0.05), gradient=0.3)


def tiny(random: Random, digits: Digits) -> Image.Image:
    """4 to 8 pixels high."""
    ink = cropped(digits())
    ink = resized(ink, random.uniform(4, 8) / max(ink.shape))
    return shot(random, sheet_with(random, ink, margin=3)[0])


Maker = Callable[[Random, Digits], Image.Image]
GOOD: dict[str, Maker] = {
    "plain": plain,
    "turned": rotated,
    "slanted": sheared,
    "noisy": noisy,
    "faint": faint,
    "lit from one side": lit,
    "blurred": blurred,
    "small": small,
    "no margin": tight,
}
"""Kinds of pictures that show one whole digit."""
BAD: dict[str, Maker] = {
    "two digits side by side": side_by_side,
    "three digits": three,
    "two digits, one above the other": stacked,
    "two digits that touch": touching,
    "a box around the digit": framed,
    "a frame at the border": bordered,
    "ruled paper": ruled,
    "squared paper": squared,
    "a digit cut off": cut_off,
    "the edge of the paper": desk,
    "ink as faint as the noise": too_faint,
    "nothing": nothing,
    "4 to 8 pixels": tiny,
}
"""Kinds of pictures that no answer is right for, or that show too little of it."""


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
