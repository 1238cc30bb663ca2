"""Which training images an epoch takes: all of them, or those that are still hard and some others.

After an epoch or two nine images in ten have a loss near zero, and so a gradient that changes
nothing. Sources: selective backpropagation (Jiang et al. 2019), online batch selection (Loshchilov
& Hutter 2016); here by each image's loss when it was last seen, which costs nothing.
"""

from __future__ import annotations

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


class Selection:
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
        self._losses = torch.full((count,), torch.inf, device=accelerator.device)
        self._noted: list[tuple[Tensor, Tensor]] = []

    def order(self, epoch: int, generator: torch.Generator) -> Tensor:
        """The epoch's images, in the order in which they are trained on: (M,), int64, CPU."""
        shuffled = torch.randperm(self._count, generator=generator)
        wanted = images_in_epoch(self._recipe, self._count, epoch)
        if wanted == self._count:
            return shuffled
        # By the shuffled order, so that of equal losses the same image is not always taken.
        losses = self._losses.cpu()[shuffled]
        hard = torch.zeros(self._count, dtype=torch.bool)
        hardest = round(wanted * self._recipe.hardest_share)
        hard[losses.topk(hardest, sorted=False).indices] = True
        # Among as many as are wanted there are as many others as are needed.
        others = shuffled[:wanted][~hard[:wanted]]
        chosen = torch.cat((shuffled[hard], others))[:wanted]
        return chosen[torch.randperm(wanted, generator=generator)]

    def note(self, images: Tensor, losses: Tensor) -> None:
        """Remember what images of this rank's share cost: both (N,), on the device."""
        if self._recipe.selected_share < 1:
            self._noted.append((images, losses))

    def end_epoch(self, order: Tensor) -> None:
        """Share what all ranks have noted of the epoch's images."""
        if self._noted:
            images, losses = (torch.cat(part) for part in zip(*self._noted, strict=True))
            seen = torch.zeros_like(self._losses)
            seen[images] = losses
            order = order.to(seen.device)
            self._losses[order] = self._accelerator.reduce(seen, "sum")[order]
            self._noted.clear()
