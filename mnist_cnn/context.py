"""What all runs of a benchmark share, as one value."""

from __future__ import annotations

from dataclasses import dataclass

from accelerate import Accelerator

from mnist_cnn.recipe import Kernels, Recipe


@dataclass(frozen=True, slots=True)
class TrainingContext:
    """What is trained and by what; the weights, the data and the seed are a run's own."""

    recipe: Recipe
    """Recipe to train by."""
    accelerator: Accelerator
    """Device, precision and ranks."""
    kernels: Kernels = "torch"
    """Code that computes a training step."""
