"""Launches the kernels of `network.cu` for whole steps and evaluations."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from mnist_cnn.context import TrainingContext
from mnist_cnn.kernels.buffers import DeviceBuffers
from mnist_cnn.kernels.cluster.launch import (
    EvaluationArguments,
    Launch,
    StepArguments,
    UpdateArguments,
)
from mnist_cnn.model import PARAMETERS, MnistCnn

_STATISTICS = 2 * (18 + 32 + 18 + 32 + 18 + 32 + 10)
"""Means and variances of all batch norms."""
_PARAMETERS_A_BLOCK = 32
"""Parameters that a block of the update changes."""


class ClusterProgram:
    """Trains and evaluates with the kernels; see `mnist_cnn.engine.graph.StepProgram`.

    Args:
        context: a recipe for which `unsupported_reason` has none.
        buffers: tensors that it reads and writes.
        launch: starts a kernel on the device of the buffers.
    """

    def __init__(self, context: TrainingContext, buffers: DeviceBuffers, launch: Launch) -> None:
        recipe, device = context.recipe, buffers.images.device
        self._recipe, self._buffers, self._launch = recipe, buffers, launch
        self._group = recipe.norm_batch_size or recipe.batch_size
        self._groups = -(-recipe.batch_size // self._group)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, device=device)

        self._weights, self._velocities = zeros(PARAMETERS), zeros(PARAMETERS)
        self._running = zeros(_STATISTICS)
        self._averages = recipe.average_decay > 0
        self._average = zeros(PARAMETERS) if self._averages else self._weights
        self._average_running = zeros(_STATISTICS) if self._averages else self._running
        self._gradients = zeros(recipe.batch_size, PARAMETERS)
        """A row for each image."""
        self._statistics = zeros(self._groups, _STATISTICS)
        """Means and variances of each group's batch norms."""
        images = len(buffers.evaluation_images)
        self._losses, self._correct = zeros(images), zeros(images)
        self._scale = 1 / (255 * recipe.pixel_deviation)
        self._offset = recipe.pixel_mean / recipe.pixel_deviation

    @torch.no_grad()
    def load(self, model: MnistCnn) -> None:
        """See `StepProgram`."""
        self._weights.copy_(parameters_to_vector(model.parameters()))
        self._running.copy_(torch.cat(list(_statistics(model))))
        self._velocities.zero_()
        # A run that diverged has left NaN, which no weight of the average takes out.
        self._average.copy_(self._weights)
        self._average_running.copy_(self._running)

    @torch.no_grad()
    def store(self, model: MnistCnn, *, averaged: bool = True) -> None:
        """See `StepProgram`."""
        # The model gets memory of its own, which a later step does not change.
        weights = (self._average if averaged else self._weights).clone()
        vector_to_parameters(weights, model.parameters())
        running = self._average_running if averaged else self._running
        start = 0
        for statistic in _statistics(model):
            statistic.copy_(running[start : start + len(statistic)])
            start += len(statistic)

    @torch.no_grad()
    def take_statistics(self, model: MnistCnn) -> None:
        """See `StepProgram`."""
        self._average_running.copy_(torch.cat(list(_statistics(model))))

    def train(self, size: int) -> None:
        """See `StepProgram`."""
        buffers, recipe = self._buffers, self._recipe
        groups = -(-size // self._group)
        step = StepArguments(
            images=buffers.images,
            labels=buffers.labels,
            order=buffers.order,
            distortions=buffers.distortions,
            position=buffers.position,
            step=buffers.step,
            weights=self._weights,
            losses=buffers.losses,
            gradients=self._gradients,
            statistics=self._statistics,
            count=size,
            scale=self._scale,
            offset=self._offset,
            smoothing=recipe.label_smoothing,
        )
        self._launch("train_step", groups * self._group, self._group, step)
        update = UpdateArguments(
            weights=self._weights,
            velocities=self._velocities,
            average=self._average,
            running=self._running,
            average_running=self._average_running,
            gradients=self._gradients,
            statistics=self._statistics,
            rates=buffers.learning_rates,
            shares=buffers.average_weights,
            step=buffers.step,
            position=buffers.position,
            count=size,
            groups=groups,
            averages=self._averages,
            momentum=recipe.momentum,
            decay=recipe.weight_decay,
        )
        # One block more updates the running statistics.
        self._launch("update", -(-PARAMETERS // _PARAMETERS_A_BLOCK) + 1, 1, update)

    def evaluate(self) -> None:
        """See `StepProgram`."""
        buffers = self._buffers
        images = len(buffers.evaluation_images)
        arguments = EvaluationArguments(
            images=buffers.evaluation_images,
            labels=buffers.evaluation_labels,
            weights=self._average,
            running=self._average_running,
            losses=self._losses,
            correct=self._correct,
            scale=self._scale,
            offset=self._offset,
        )
        self._launch("evaluate", images, 1, arguments)
        buffers.totals[0].copy_(self._correct.sum())
        buffers.totals[1].copy_(self._losses.sum())
        buffers.totals[2].fill_(images)


def _statistics(model: MnistCnn) -> Iterator[Tensor]:
    """Mean and variance of each batch norm, in the network's order."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            yield module.running_mean
            yield module.running_var
