"""Measures an exported file: runs it on every test image."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mnist_cnn.augment import normalise
from mnist_cnn.recipe import REFERENCE

BATCH = 500
"""Number of images in a forward pass."""
TOLERANCE = 1e-3
"""Largest allowed difference of a logit from the trained network's, relative to the largest logit.
Rounding in another order gives about a millionth; a wrong conversion gives more than this."""

Classifier = Callable[[Tensor], Tensor]
"""Images (N, 1, 28, 28), uint8, to logits (N, 10), float32."""


class Disagreement(Exception):
    """An exported file does not compute what the trained network computes."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Counts over the test images."""

    samples: int
    """Number of test images."""
    correct: int
    """Number of images that the exported file classifies correctly."""
    agreeing: int
    """Number of images for which it gives the same digit as the trained network in PyTorch."""

    @property
    def accuracy(self) -> float:
        """Share classified correctly, 0 to 1."""
        return self.correct / self.samples

    @property
    def standard_error(self) -> float:
        """Binomial standard error of the accuracy, from the number of images."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / self.samples)


class RawPixels(nn.Module):
    """`network` for images as in MNIST's files: 0 (background) to 255 (ink), uint8."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, 28, 28), uint8, to logits (N, 10)."""
        # All recipes have the reference's normalisation.
        return self.network(normalise(images, REFERENCE))  # type: ignore[no-any-return]


def measure(exported: Classifier, trained: Classifier, images: Tensor, labels: Tensor) -> Measured:
    """Run the exported file and the trained network on every image.

    Args:
        exported: runs the exported file.
        trained: runs the trained network.
        images: (N, 28, 28), uint8.
        labels: (N,), int64.

    Raises:
        Disagreement: their logits differ by more than rounding, or are not finite.
    """
    exported_logits, logits = _logits(exported, images), _logits(trained, images)
    difference = (exported_logits - logits).abs().max().item()
    allowed = TOLERANCE * logits.abs().max().item()
    if not difference <= allowed:  # also refuses NaN
        raise Disagreement(
            f"the exported file's logits differ from the trained network's by up to "
            f"{difference:.3g}, more than rounding explains ({allowed:.3g})"
        )
    predictions = exported_logits.argmax(1)
    return Measured(
        samples=len(labels),
        correct=int((predictions == labels).sum()),
        agreeing=int((predictions == logits.argmax(1)).sum()),
    )


@torch.inference_mode()
def _logits(classifier: Classifier, images: Tensor) -> Tensor:
    return torch.cat([classifier(batch) for batch in images.unsqueeze(1).split(BATCH)])
