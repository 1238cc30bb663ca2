"""The tensors that a program of the device reads and writes, which stay where they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from mnist_cnn.augment import COLUMNS, SIDE
from mnist_cnn.data.dataset import Split
from mnist_cnn.recipe import Recipe
from mnist_cnn.sampler import steps_in_epoch


@dataclass(frozen=True, slots=True)
class DeviceBuffers:
    """Of one recipe, on the device: N training images, M held out, S steps of a whole run."""

    images: Tensor
    """(N, 28, 28), uint8."""
    labels: Tensor
    """(N,), int64."""
    held_out: Tensor
    """(M, 28, 28), uint8."""
    truth: Tensor
    """(M,), int64."""
    order: Tensor
    """(N,), int64: the epoch's images first."""
    table: Tensor
    """(N, 10): how each of them is distorted, in that order."""
    losses: Tensor
    """(N,): what each of them cost, in that order."""
    place: Tensor
    """(1,), int64: images of the epoch that are done."""
    step: Tensor
    """(1,), int64: steps of the run that are done."""
    rates: Tensor
    """(S,): the learning rate of each step."""
    shares: Tensor
    """(S,): what the network counts in the average after each step."""
    totals: Tensor
    """(3,): held-out images classified rightly, the sum of their losses, their number."""


def device_buffers(recipe: Recipe, accelerator: Accelerator, data: Split) -> DeviceBuffers:
    """Room for a recipe's training and for the images held out in `data`."""
    device = accelerator.device
    images, held_out = recipe.train_images, len(data.evaluation_images)
    steps = max(_steps(recipe), -(-images // recipe.batch_size))

    def room(*shape: int, of: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(shape, dtype=of, device=device)

    return DeviceBuffers(
        images=room(images, SIDE, SIDE, of=torch.uint8),
        labels=room(images, of=torch.int64),
        held_out=room(held_out, SIDE, SIDE, of=torch.uint8),
        truth=room(held_out, of=torch.int64),
        order=room(images, of=torch.int64),
        table=room(images, COLUMNS),
        losses=room(images),
        place=room(1, of=torch.int64),
        step=room(1, of=torch.int64),
        rates=room(steps),
        shares=room(steps),
        totals=room(3),
    )


def _steps(recipe: Recipe) -> int:
    """Optimizer steps of a whole run."""
    epochs = range(1, recipe.epochs + 1)
    return sum(steps_in_epoch(recipe, recipe.train_images, epoch) for epoch in epochs)
