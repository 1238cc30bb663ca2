"""The tensors that a captured step reads and writes; they keep their addresses over all runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mnist_cnn.augment import COLUMNS, SIDE
from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import Split
from mnist_cnn.recipe import Recipe
from mnist_cnn.sampler import steps_in_epoch


@dataclass(frozen=True, slots=True)
class DeviceBuffers:
    """On the device, for N training images, M evaluation images and S steps of a whole run."""

    images: Tensor
    """Training images, (N, 28, 28), uint8."""
    labels: Tensor
    """Their labels, (N,), int64."""
    evaluation_images: Tensor
    """Evaluation images, (M, 28, 28), uint8."""
    evaluation_labels: Tensor
    """Their labels, (M,), int64."""
    order: Tensor
    """Indices of the epoch's images, in training order, at the start of (N,), int64."""
    distortions: Tensor
    """Distortion of each image of the epoch, in training order, (N, 10)."""
    losses: Tensor
    """Loss of each image of the epoch, in training order, (N,)."""
    position: Tensor
    """Number of images of the epoch already trained on, (1,), int64."""
    step: Tensor
    """Number of steps of the run already done, (1,), int64."""
    learning_rates: Tensor
    """Learning rate of each step, (S,)."""
    average_weights: Tensor
    """Weight of the network in the moving average after each step, (S,)."""
    totals: Tensor
    """Number of correct evaluation images, the sum of their losses, and their number, (3,)."""


def device_buffers(context: TrainingContext, data: Split) -> DeviceBuffers:
    """Buffers with room for the recipe's training and for the evaluation images of `data`."""
    recipe, device = context.recipe, context.accelerator.device
    images, evaluation_images = recipe.train_images, len(data.evaluation_images)
    steps = max(_steps(recipe), -(-images // recipe.batch_size))

    def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=device)

    return DeviceBuffers(
        images=zeros(images, SIDE, SIDE, dtype=torch.uint8),
        labels=zeros(images, dtype=torch.int64),
        evaluation_images=zeros(evaluation_images, SIDE, SIDE, dtype=torch.uint8),
        evaluation_labels=zeros(evaluation_images, dtype=torch.int64),
        order=zeros(images, dtype=torch.int64),
        distortions=zeros(images, COLUMNS),
        losses=zeros(images),
        position=zeros(1, dtype=torch.int64),
        step=zeros(1, dtype=torch.int64),
        learning_rates=zeros(steps),
        average_weights=zeros(steps),
        totals=zeros(3),
    )


def _steps(recipe: Recipe) -> int:
    """Optimizer steps of a whole run."""
    epochs = range(1, recipe.epochs + 1)
    return sum(steps_in_epoch(recipe, recipe.train_images, epoch) for epoch in epochs)
