"""The training step as Triton kernels, for GPUs."""

from __future__ import annotations

from mnist_cnn.recipe import Recipe


def unsupported_reason(recipe: Recipe) -> str | None:
    """Why the kernels cannot train a recipe; None where they can."""
    if recipe.has_norm_groups:
        return "they have no batch norm over groups of a batch"
    if recipe.optimizer != "sgd" or recipe.cycle_momentum:
        return "they have no other optimizer than SGD with constant momentum"
    if recipe.dropout > 0:
        return "they have no dropout"
    if recipe.interpolation != "bilinear" or recipe.brightness > 0 or recipe.contrast > 0:
        return "they have no other distortion than bilinear resampling"
    return None


def is_shortage(error: Exception) -> bool:
    """Whether a kernel needs more of a device than it has, so that a smaller one may do."""
    return type(error).__name__ == "OutOfResources"
