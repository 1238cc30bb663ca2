"""What a training run tells whoever watches it: numbers only, no tensors, no clock.

The workload yields these; the harness stamps each with its own clock as it arrives.
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
    """Ranks that train together."""
    train_samples: int
    """Training images there are, over all ranks."""
    evaluation_samples: int
    """Images every evaluation counts, over all ranks."""
    steps: int
    """Optimizer steps of the whole run."""


@dataclass(frozen=True, slots=True)
class EpochTrained:
    """One pass over the training images, or over those selected, is done."""

    epoch: int
    """Which pass, from 1."""
    steps: int
    """Optimizer steps of this epoch."""
    samples: int
    """Training images this epoch, over all ranks."""
    loss: float
    """Mean training loss over the epoch's images, all ranks'; not finite when training diverged."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The network has been evaluated on every held-out image."""

    epoch: int
    """The last epoch trained."""
    samples: int
    """Images counted, over all ranks: each exactly once."""
    correct: int
    """Of these, the images classified rightly."""
    loss: float
    """Mean cross-entropy over the images."""

    @property
    def accuracy(self) -> float:
        """Share classified rightly, 0 to 1."""
        return self.correct / self.samples


@dataclass(frozen=True, slots=True)
class Checkpointed:
    """What the epochs after this one depend on is in files, of every rank."""

    epoch: int
    """The last epoch trained."""
    digests: tuple[str, ...]
    """SHA-256 of each rank's file, in hexadecimal."""


@dataclass(frozen=True, slots=True)
class Finished:
    """Every epoch of the recipe is done."""

    epochs: int
    samples: int
    """Training images seen in all, over all ranks."""


@dataclass(frozen=True, slots=True)
class Mistakes:
    """What an evaluation took for something else. No event: nothing of it is told while timed."""

    images: tuple[int, ...]
    """Which of the images it evaluated, from 0, in order."""
    predicted: tuple[int, ...]
    """What each was taken for, 0 to 9."""


Event = Started | EpochTrained | Evaluated | Checkpointed | Finished
