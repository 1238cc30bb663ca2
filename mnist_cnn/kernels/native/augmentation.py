"""The recipe's distortions in compiled code."""

from __future__ import annotations

import torch
from torch import Tensor

from mnist_cnn.augment import SIDE, Distortions
from mnist_cnn.kernels.native.library import library
from mnist_cnn.recipe import Kernels, Recipe


def augments(recipe: Recipe) -> bool:
    """Whether compiled code supports this recipe's distortions."""
    return recipe.interpolation == "bilinear" and recipe.brightness == recipe.contrast == 0


def augment(
    images: Tensor, chosen: Tensor, distortions: Distortions, recipe: Recipe, kernels: Kernels
) -> Tensor:
    """The same as `mnist_cnn.augment.augment` of `images[chosen]`.

    Args:
        images: (M, 28, 28), uint8, contiguous, on the CPU.
        chosen: (N,), int64, contiguous.
        distortions: N rows.
        recipe: a recipe for which `augments` is true.
        kernels: compiled code for which `unavailable_reason` is None.

    Returns:
        (N, 1, 28, 28), float32.
    """
    out = torch.empty(len(chosen), 1, SIDE, SIDE)
    table = distortions.table.contiguous()
    chosen = chosen.contiguous()
    library().augment(
        kernels.encode(),
        images.data_ptr(),
        chosen.data_ptr(),
        len(chosen),
        table.data_ptr(),
        1 / (255 * recipe.pixel_deviation),
        recipe.pixel_mean / recipe.pixel_deviation,
        out.data_ptr(),
    )
    return out
