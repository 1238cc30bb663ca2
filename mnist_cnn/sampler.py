"""Which training images an epoch takes: all of them, or those that are still hard and some others.

After an epoch or two nine images in ten have a loss near zero, and so a gradient that changes
nothing. Sources: selective backpropagation (Jiang et al. 2019), online batch selection (Loshchilov
& Hutter 2016); here by each image's loss when it was last seen, which costs nothing.
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

    All in the first ones that are whole, and in the only one of a recipe that has one: nothing is
    known then to select by. Later a share, in whole batches.
    """
    if recipe.epochs == 1 or epoch <= recipe.whole_epochs or recipe.selected_share == 1:
        return count
    batches = max(1, round(recipe.selected_share * count / recipe.batch_size))
    return min(count, batches * recipe.batch_size)


def steps_in_epoch(recipe: Recipe, count: int, epoch: int) -> int:
    """How many batches those images make; the last may be smaller."""
    return math.ceil(images_in_epoch(recipe, count, epoch) / recipe.batch_size)


@dataclass(frozen=True, slots=True)
class EpochDraw:
    """What chance contributes to an epoch's order; it can be drawn before the last one is over."""

    images: Tensor
    """(N,), int64, on the CPU: all training images."""
    places: Tensor
    """(M,), int64, on the CPU: all places of the epoch's order, empty where it takes all images."""


class HardExampleSampler:
    """The images of each epoch, the same on every rank.

    Args:
        recipe: says how many, and how many of these for their loss.
        count: training images.
        accelerator: the device and the ranks.
    """

    def __init__(self, recipe: Recipe, count: int, accelerator: Accelerator) -> None:
        self._recipe = recipe
        self._count = count
        self._accelerator = accelerator
        self.losses = torch.full((count,), torch.inf, device=accelerator.device)
        """What each training image cost when last seen, (N,); infinite where it never was."""

    def shuffle(self, epoch: int, generator: torch.Generator) -> EpochDraw:
        """Draw what `order` needs of chance."""
        wanted = images_in_epoch(self._recipe, self._count, epoch)
        images = torch.randperm(self._count, generator=generator)
        places = 0 if wanted == self._count else wanted
        return EpochDraw(images, torch.randperm(places, generator=generator))

    def order(self, shuffle: EpochDraw) -> Tensor:
        """An epoch's images, in the order in which they are trained on: (M,), int64, on the device.

        The device is not waited for. Of images with equal losses, those never seen, it is the
        device that chooses, so not all devices choose the same.
        """
        device = self.losses.device
        shuffled, places = shuffle.images.to(device), shuffle.places.to(device)
        wanted = len(places)
        if wanted == 0:
            return shuffled
        # By the shuffled order, so that of equal losses the same image is not always taken.
        losses = self.losses[shuffled]
        hardest = round(wanted * self._recipe.hardest_share)
        chosen = losses.topk(hardest, sorted=False).indices.sort().values
        hard = torch.zeros(wanted + 1, dtype=torch.bool, device=device)
        hard[chosen.clamp(max=wanted)] = True
        # Among as many as are wanted there are as many others as are needed. Each goes to the place
        # after those before it; the hard ones and what is too much go to one that is cut off.
        others = ~hard[:wanted]
        place = torch.where(others, others.cumsum(0) - 1, wanted)
        taken = torch.empty(wanted + 1, dtype=torch.int64, device=device)
        taken.scatter_(0, place, shuffled[:wanted])
        return torch.cat((shuffled[chosen], taken))[:wanted][places]

    def end_epoch(self, order: Tensor, mine: Tensor, losses: Tensor) -> None:
        """Remember what each image cost, for the choice of later ones.

        Args:
            order: the epoch's images, as `order` returned them.
            mine: (m,), int64: those that this rank trained on.
            losses: (m,): what they cost it.
        """
        if self._recipe.selected_share == 1:
            return
        if self._accelerator.num_processes == 1:
            self.losses[mine] = losses
            return
        seen = torch.zeros_like(self.losses)
        seen[mine] = losses
        self.losses[order] = self._accelerator.reduce(seen, "sum")[order]
