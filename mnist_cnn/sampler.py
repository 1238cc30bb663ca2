"""Chooses the training images of an epoch: all of them, or the hardest and some others.

After one or two passes a tenth of the images has most of the sum of the losses, so the others'
gradients change little (docs/speed.md). Sources: selective backpropagation (Jiang et al. 2019),
online batch selection (Loshchilov & Hutter 2016). Here an image's last training loss decides, which
costs no extra computation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from mnist_cnn.recipe import Recipe


def images_in_epoch(recipe: Recipe, count: int, epoch: int) -> int:
    """How many of `count` training images an epoch, counted from 1, takes over all ranks.

    The first `whole_epochs` take all, and so does the only epoch of a one-epoch recipe, because no
    losses are known yet. Later epochs take a share, in whole batches.
    """
    if recipe.epochs == 1 or epoch <= recipe.whole_epochs or recipe.selected_share == 1:
        return count
    batches = max(1, round(recipe.selected_share * count / recipe.batch_size))
    return min(count, batches * recipe.batch_size)


def steps_in_epoch(recipe: Recipe, count: int, epoch: int) -> int:
    """Number of batches of these images; the last one may be smaller."""
    return math.ceil(images_in_epoch(recipe, count, epoch) / recipe.batch_size)


def smaller_batches(recipe: Recipe, count: int) -> set[int]:
    """Sizes of the last batches of a run's epochs, where they are smaller than the others."""
    epochs = range(1, recipe.epochs + 1)
    return {images_in_epoch(recipe, count, epoch) % recipe.batch_size for epoch in epochs} - {0}


@dataclass(frozen=True, slots=True)
class EpochDraw:
    """The random part of an epoch's order; it can be drawn before the previous epoch ends."""

    images: Tensor
    """All training images, shuffled, (N,), int64, on the CPU."""
    positions: Tensor
    """Positions in the epoch's order, shuffled, (M,), int64, on the CPU; empty for all images."""


class HardExampleSampler:
    """Chooses the images of each epoch, the same on every rank.

    Args:
        recipe: the shares of selected and of hardest images.
        count: number of training images.
        accelerator: the device and the ranks.
    """

    def __init__(self, recipe: Recipe, count: int, accelerator: Accelerator) -> None:
        self._recipe = recipe
        self._count = count
        self._accelerator = accelerator
        self.losses = torch.full((count,), torch.inf, device=accelerator.device)
        """Last training loss of each image, (N,); infinite for images not yet trained on."""

    def draw(self, epoch: int, generator: torch.Generator) -> EpochDraw:
        """Draw the random part of an epoch's order."""
        size = images_in_epoch(self._recipe, self._count, epoch)
        images = torch.randperm(self._count, generator=generator)
        positions = 0 if size == self._count else size
        return EpochDraw(images, torch.randperm(positions, generator=generator))

    def order(self, draw: EpochDraw) -> Tensor:
        """The indices of an epoch's images, in training order, (M,), int64, on the device.

        This does not wait for the device. Among images with equal losses (those not yet trained
        on) the device's `topk` chooses, so devices may choose differently.
        """
        device = self.losses.device
        shuffled, positions = draw.images.to(device), draw.positions.to(device)
        size = len(positions)
        if size == 0:
            return shuffled
        # In shuffled order, so that among equal losses not always the same image is chosen.
        losses = self.losses[shuffled]
        hardest = round(size * self._recipe.hardest_share)
        chosen = losses.topk(hardest, sorted=False).indices.sort().values
        hard = torch.zeros(size + 1, dtype=torch.bool, device=device)
        hard[chosen.clamp(max=size)] = True
        # The first `size` shuffled images contain enough others. Each of these is written to the
        # next free position; the hard ones are written to an extra position that is cut off.
        is_other = ~hard[:size]
        target = torch.where(is_other, is_other.cumsum(0) - 1, size)
        others = torch.empty(size + 1, dtype=torch.int64, device=device)
        others.scatter_(0, target, shuffled[:size])
        return torch.cat((shuffled[chosen], others))[:size][positions]

    def end_epoch(self, order: Tensor, indices: Tensor, losses: Tensor) -> None:
        """Store the loss of each image, for the choice in later epochs.

        Args:
            order: the epoch's images, as `order` returned them.
            indices: the images that this rank trained on, (m,), int64.
            losses: their losses, (m,).
        """
        if self._recipe.selected_share == 1:
            return
        if self._accelerator.num_processes == 1:
            self.losses[indices] = losses
            return
        all_losses = torch.zeros_like(self.losses)
        all_losses[indices] = losses
        self.losses[order] = self._accelerator.reduce(all_losses, "sum")[order]
