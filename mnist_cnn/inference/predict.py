"""Which digit a picture shows, and a chart of how sure the network is."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from mnist_cnn.augment import normalise
from mnist_cnn.inference.image_file import read_digit
from mnist_cnn.model import MnistCnn
from mnist_cnn.recipe import REFERENCE

BAR_COLUMNS = 40
"""Width of a bar that stands for 100 %."""
BLOCKS = " ▏▎▍▌▋▊▉█"
"""A column filled by none to eight eighths."""


@torch.inference_mode()
def predict(model: MnistCnn, path: Path) -> Tensor:
    """The probability of each digit, given the picture.

    Args:
        model: trained weights, on the CPU.
        path: a PNG or JPEG file.

    Returns:
        (10,), float32; they sum to 1.

    Raises:
        UsageError: the file cannot be read, is no picture, or shows nothing.
    """
    # Every recipe normalises as the reference does.
    image = normalise(read_digit(path), REFERENCE)
    logits: Tensor = model.eval()(image[None, None])
    return logits[0].softmax(0)


def chart(name: str, probabilities: Tensor, encoding: str) -> str:
    """The winner on the first line, then a bar for each digit.

    Args:
        name: of the picture.
        probabilities: (10,).
        encoding: of where this is printed; where it has no block characters, bars are of "#".
    """
    winner = int(probabilities.argmax())
    lines = [f"{name}: {winner} ({percent(probabilities[winner].item())})"]
    blocks = BLOCKS if _encodes(BLOCKS, encoding) else " #"
    for digit, probability in enumerate(probabilities.tolist()):
        filled = bar(probability, blocks).ljust(BAR_COLUMNS)
        lines.append(f"  {digit} {filled} {percent(probability):>7}")
    return "\n".join(lines)


def bar(share: float, blocks: str) -> str:
    """A bar of `share` times `BAR_COLUMNS` columns; `blocks` are the fillings of a column."""
    steps = len(blocks) - 1
    full, rest = divmod(round(share * BAR_COLUMNS * steps), steps)
    return (blocks[-1] * full + blocks[rest]).rstrip()


def percent(share: float) -> str:
    """``"99.8 %"``; never rounded up to a certainty it is not."""
    return f"{100 * share:.1f} %" if share < 0.9995 or share == 1 else "99.9 %"


def _encodes(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
