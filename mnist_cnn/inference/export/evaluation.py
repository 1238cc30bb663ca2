"""How well an exported file does, found by running that file on every test image."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mnist_cnn.augment import normalise
from mnist_cnn.recipe import REFERENCE

BATCH = 500
"""Images a forward pass."""
TOLERANCE = 1e-3
"""How far logits may lie from the trained network's, as a share of the largest: rounding in another
order gives about a millionth, a wrong conversion more than this."""

Classifier = Callable[[Tensor], Tensor]
"""Images (N, 1, 28, 28), uint8, to logits (N, 10), float32."""


class Disagreement(Exception):
    """An exported file does not compute what the trained network does."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Counts over the test images."""

    samples: int
    correct: int
    """Images the exported file classifies rightly."""
    agreeing: int
    """Images to which it gives the digit that the trained network gives in PyTorch."""

    @property
    def accuracy(self) -> float:
        """Share classified rightly, 0 to 1."""
        return self.correct / self.samples

    @property
    def standard_error(self) -> float:
        """Of the accuracy, for having counted only so many images (binomial)."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / self.samples)


class RawPixels(nn.Module):
    """`network` for images as MNIST's files have them, 0 (background) to 255 (ink), uint8."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, 28, 28), uint8, to logits (N, 10)."""
        # Every recipe normalises as the reference does.
        return self.network(normalise(images, REFERENCE))  # type: ignore[no-any-return]


def measure(exported: Classifier, trained: Classifier, images: Tensor, labels: Tensor) -> Measured:
    """Run both on every image.

    Args:
        exported: the file that was written.
        trained: the network it was made from.
        images: (N, 28, 28), uint8.
        labels: (N,), int64.

    Raises:
        Disagreement: their logits differ by more than rounding, or are not finite.
    """
    theirs, ours = _logits(exported, images), _logits(trained, images)
    difference = (theirs - ours).abs().max().item()
    allowed = TOLERANCE * ours.abs().max().item()
    if not difference <= allowed:  # NaN too
        raise Disagreement(
            f"the exported file's logits differ from the trained network's by up to "
            f"{difference:.3g}, more than rounding explains ({allowed:.3g})"
        )
    guesses = theirs.argmax(1)
    return Measured(
        samples=len(labels),
        correct=int((guesses == labels).sum()),
        agreeing=int((guesses == ours.argmax(1)).sum()),
    )


@torch.inference_mode()
def _logits(classifier: Classifier, images: Tensor) -> Tensor:
    return torch.cat([classifier(part) for part in images.unsqueeze(1).split(BATCH)])
