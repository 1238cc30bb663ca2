"""The events of a training run: numbers only, no tensors, no clock.

The workload yields them; the harness stamps each with its own clock as it arrives.
Standard library only, so that anything may read events without importing torch.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Started:
    """The model, optimizer and data are on the device; the next thing done is the first step."""

    parameters: int
    """Trainable parameters of the network."""
    processes: int
    """Number of ranks that train together."""
    train_samples: int
    """Number of training images, over all ranks."""
    evaluation_samples: int
    """Number of images in every evaluation, over all ranks."""
    steps: int
    """Number of optimizer steps of the whole run."""


@dataclass(frozen=True, slots=True)
class EpochTrained:
    """One pass over the training images, or over the selected ones, is done."""

    epoch: int
    """Number of the epoch, from 1."""
    steps: int
    """Number of optimizer steps of this epoch."""
    samples: int
    """Number of training images of this epoch, over all ranks."""
    loss: float
    """Mean training loss of the epoch's images, all ranks; not finite when training diverged."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The network has been evaluated on every evaluation image."""

    epoch: int
    """Number of the last epoch trained, from 1."""
    samples: int
    """Number of evaluation images, over all ranks; each counts exactly once."""
    correct: int
    """Number of them that were classified correctly."""
    loss: float
    """Mean cross-entropy over the images."""

    @property
    def accuracy(self) -> float:
        """Share classified correctly, 0 to 1."""
        return self.correct / self.samples


@dataclass(frozen=True, slots=True)
class Checkpointed:
    """Every rank has saved the state from which the epochs after this one can continue."""

    epoch: int
    """Number of the last epoch trained, from 1."""
    digests: tuple[str, ...]
    """SHA-256 of each rank's file, in hexadecimal."""


@dataclass(frozen=True, slots=True)
class Finished:
    """Every epoch of the recipe is done."""

    epochs: int
    """Number of epochs trained."""
    samples: int
    """Number of images trained on in all epochs, over all ranks."""


@dataclass(frozen=True, slots=True)
class Mistakes:
    """Misclassified images of an evaluation. Not an event: it is determined outside of timing."""

    images: tuple[int, ...]
    """Indices of the misclassified evaluation images, from 0, ascending."""
    predicted: tuple[int, ...]
    """Predicted digit of each of them, 0 to 9."""


Event = Started | EpochTrained | Evaluated | Checkpointed | Finished
