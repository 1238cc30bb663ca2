"""The training step as Triton kernels, for GPUs."""

from __future__ import annotations

from mnist_cnn.recipe import Recipe


def unsupported_reason(recipe: Recipe) -> str | None:
    """Why the kernels cannot train by a recipe; None where they can."""
    if 0 < recipe.norm_batch_size < recipe.batch_size:
        return "batch norm takes parts of a batch"
    if recipe.optimizer != "sgd" or recipe.cycle_momentum:
        return "only SGD with one momentum for all steps is one of them"
    if recipe.dropout > 0:
        return "there is no dropout among them"
    if recipe.interpolation != "bilinear" or recipe.brightness > 0 or recipe.contrast > 0:
        return "they distort by bilinear resampling alone"
    return None
