"""What kernels that compute whole steps on a GPU have in common."""

from __future__ import annotations

from mnist_cnn.recipe import Recipe


def unsupported_part(recipe: Recipe) -> str | None:
    """What a recipe has that such kernels have not; None where they have all."""
    if recipe.optimizer != "sgd" or recipe.cycle_momentum:
        return "they have no other optimizer than SGD with constant momentum"
    if recipe.dropout > 0:
        return "they have no dropout"
    if recipe.interpolation != "bilinear" or recipe.brightness > 0 or recipe.contrast > 0:
        return "they have no other distortion than bilinear resampling"
    return None
