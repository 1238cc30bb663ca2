"""Trains a few steps on the CPU in fp32, by the plain mathematics: the judge of all other code.

No engine, no kernels, no optimizer classes, one process: what is compared with it shares no more
with it than the network and the images.
"""

from __future__ import annotations

import math
from copy import deepcopy

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mnist_cnn.augment import Distortions, augment, normalise
from mnist_cnn.data.dataset import Split
from mnist_cnn.engine.ema import floats
from mnist_cnn.model import GroupedNetwork, MnistCnn
from mnist_cnn.optim import learning_rates
from mnist_cnn.recipe import Recipe

_ADAM_SECOND, _ADAM_FLOOR = 0.999, 1e-8
"""Adam's second decay and its denominator's floor, as torch has them."""
_CYCLED_MOMENTUM = 0.95, 0.85
"""Momentum at the start and at the peak of the learning rate, as torch's OneCycleLR has them."""


class Judge:
    """See the module.

    Args:
        recipe: what is trained, without dropout.
        network: the initial weights, on the CPU; they are trained in place.
        data: the images.
        steps: optimizer steps of the whole run, of which the first ones are made.
        ranks: how many ranks share a batch: where it has fewer groups for batch norm, each rank
            takes single images in turn, and they are its group.
        layout: how images, activations and weights lie in memory.
    """

    def __init__(
        self,
        recipe: Recipe,
        network: MnistCnn,
        data: Split,
        steps: int,
        ranks: int = 1,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self.network = network.to(memory_format=layout).train()
        self._layout = layout
        self.evaluated = deepcopy(network) if recipe.average_decay > 0 else network
        """The network that an evaluation uses: the averaged one, where the recipe averages."""
        self._recipe, self._data = recipe, data
        group = min(recipe.norm_batch_size or recipe.batch_size, recipe.batch_size)
        self._turns = 1
        if recipe.has_norm_groups and math.ceil(recipe.batch_size / group) < ranks:
            group, self._turns = min(group, recipe.batch_size // ranks), ranks
        self._grouped = GroupedNetwork(network, group).train()
        self._rates = learning_rates(recipe, steps)
        self._momenta = _momenta(recipe, self._rates)
        self._first = [torch.zeros_like(p) for p in network.parameters()]
        self._second = [torch.zeros_like(p) for p in network.parameters()]
        self._steps = 0

    def step(self, order: Tensor, distortions: Distortions) -> Tensor:
        """Train on one batch.

        Args:
            order: indices of its images, (N,), on the CPU.
            distortions: theirs.

        Returns:
            The loss of each image before the step, (N,).
        """
        data, recipe = self._data, self._recipe
        images = augment(data.train_images[order], distortions, recipe)
        images = images.contiguous(memory_format=self._layout)
        positions = torch.arange(len(order))
        by_group = torch.cat([positions[first :: self._turns] for first in range(self._turns)])
        with torch.enable_grad():
            losses = F.cross_entropy(
                self._grouped(images[by_group])[by_group.argsort()],
                data.train_labels[order],
                label_smoothing=recipe.label_smoothing,
                reduction="none",
            )
            gradients = torch.autograd.grad(losses.mean(), list(self.network.parameters()))
        with torch.no_grad():
            self._update(gradients)
            self._steps += 1
            self._follow()
        return losses.detach()

    @torch.no_grad()
    def take_statistics(self, pixels: Tensor) -> None:
        """Replace the running statistics by those of images, (K, 28, 28), uint8, if there are."""
        if len(pixels) == 0:
            return
        for module in self.evaluated.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None  # the average of all batches; here there is one
        self.evaluated.train()(normalise(pixels, self._recipe).unsqueeze(1))

    @torch.no_grad()
    def logits(self, pixels: Tensor) -> Tensor:
        """What an evaluation computes of images, (M, 28, 28), uint8: (M, 10)."""
        logits: Tensor = self.evaluated.eval()(normalise(pixels, self._recipe).unsqueeze(1))
        return logits

    def _update(self, gradients: tuple[Tensor, ...]) -> None:
        """One step of the optimizer.

        Sources: SGD with Nesterov momentum (Sutskever et al. 2013) as torch writes it; Adam
        (Kingma & Ba 2015); both with the weight decay as a part of the gradient.
        """
        recipe, step = self._recipe, self._steps + 1
        rate, momentum = float(self._rates[self._steps]), float(self._momenta[self._steps])
        moments = zip(self.network.parameters(), gradients, self._first, self._second, strict=True)
        for weight, raw_gradient, first, second in moments:
            gradient = raw_gradient + recipe.weight_decay * weight
            if recipe.optimizer == "sgd":
                first.mul_(momentum).add_(gradient)
                weight.sub_(rate * (gradient + momentum * first))
                continue
            first.lerp_(gradient, 1 - momentum)
            second.lerp_(gradient.square(), 1 - _ADAM_SECOND)
            mean = first / (1 - momentum**step)
            deviation = (second / (1 - _ADAM_SECOND**step)).sqrt()
            weight.sub_(rate * mean / (deviation + _ADAM_FLOOR))

    def _follow(self) -> None:
        """The moving average of weights and statistics; its first update copies."""
        recipe = self._recipe
        if recipe.average_decay == 0 or self._steps % recipe.average_interval:
            return
        weight = 1.0 if self._steps == recipe.average_interval else 1 - recipe.average_decay
        for average, trained in zip(floats(self.evaluated), floats(self.network), strict=True):
            average.add_(weight * (trained - average))


def _momenta(recipe: Recipe, rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """The momentum of each step: where it cycles, it falls as the learning rate rises."""
    if not recipe.cycle_momentum:
        return np.full(len(rates), recipe.momentum)
    first = recipe.peak_learning_rate / recipe.initial_divisor
    risen = (rates - first) / (recipe.peak_learning_rate - first)
    high, low = _CYCLED_MOMENTUM
    return high + (low - high) * risen.clip(0, 1)
