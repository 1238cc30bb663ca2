"""The training step as Triton kernels, for GPUs."""

from __future__ import annotations

from mnist_cnn.kernels.whole_steps import unsupported_part
from mnist_cnn.recipe import Recipe


def unsupported_reason(recipe: Recipe) -> str | None:
    """Why the kernels cannot train a recipe; None where they can."""
    if recipe.has_norm_groups:
        return "they have no batch norm over groups of a batch"
    return unsupported_part(recipe)


def is_shortage(error: Exception) -> bool:
    """Whether a kernel needs more of a device than it has, so that a smaller one may do."""
    return type(error).__name__ == "OutOfResources"
