"""Predicts which digit a picture shows, and draws a chart of the probabilities."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from mnist_cnn.augment import normalise
from mnist_cnn.errors import UsageError
from mnist_cnn.escaping import printable
from mnist_cnn.inference.image_file import read_digit
from mnist_cnn.model import MnistCnn
from mnist_cnn.recipe import REFERENCE

TEMPERATURE = 0.57
"""What the network's output is divided by before the softmax, so that a probability is the share of
right answers: trained as it is, the network is less sure than it is right.

It has the highest likelihood on 1,592 pictures of eight kinds made of MNIST's training images
(0.58 on 1,780 with those without a margin; weights of `fast` with seed 0; docs/pictures.md). One
temperature for all weights. Source: Guo et al., "On calibration of modern neural networks" (2017).
"""
BAR_COLUMNS = 40
"""Width of a bar of 100 %, in columns."""
BLOCKS = " ▏▎▍▌▋▊▉█"
"""Characters of a column that is filled by zero to eight eighths."""


def predict(model: MnistCnn, path: Path) -> Tensor:
    """The probability of each digit, given the picture.

    Args:
        model: trained weights, on the CPU.
        path: a PNG or JPEG file.

    Returns:
        (10,), float32; they sum to 1.

    Raises:
        UsageError: the file cannot be read, is no picture, or does not show one whole digit, or
            the weights are so large that the result is no number.
    """
    return (logits_of(model, path) / TEMPERATURE).softmax(0)


@torch.inference_mode()
def logits_of(model: MnistCnn, path: Path) -> Tensor:
    """The network's output for a picture, (10,), float32; arguments and errors as `predict`'s."""
    # All recipes have the reference's normalisation.
    image = normalise(read_digit(path), REFERENCE)
    logits: Tensor = model.eval()(image[None, None])
    if not logits.isfinite().all():
        raise UsageError(f"the weights give no probabilities for {path}: they are too large")
    return logits[0]


def chart(name: str, probabilities: Tensor, encoding: str) -> str:
    """The winner on the first line, then a bar for each digit.

    Args:
        name: name of the picture.
        probabilities: (10,).
        encoding: of the output; without block characters in it, bars are made of "#".
    """
    winner = int(probabilities.argmax())
    # A byte of a name that is no text is shown by its number.
    title = printable(name.encode(errors="backslashreplace").decode())
    lines = [f"{title}: {winner} ({percent(probabilities[winner].item())})"]
    blocks = BLOCKS if _encodes(BLOCKS, encoding) else " #"
    for digit, probability in enumerate(probabilities.tolist()):
        filled = bar(probability, blocks).ljust(BAR_COLUMNS)
        lines.append(f"  {digit} {filled} {percent(probability):>7}")
    return "\n".join(lines)


def bar(share: float, blocks: str) -> str:
    """A bar of `share` times `BAR_COLUMNS` columns; `blocks` are a column's characters."""
    steps = len(blocks) - 1
    full, rest = divmod(round(share * BAR_COLUMNS * steps), steps)
    return (blocks[-1] * full + blocks[rest]).rstrip()


def percent(share: float) -> str:
    """``"99.8 %"``; 100 % only where the share is exactly 1."""
    return f"{100 * share:.1f} %" if share < 0.9995 or share == 1 else "99.9 %"


def _encodes(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
