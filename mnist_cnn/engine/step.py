"""A training step without its update: from a batch to losses and gradients.

One class a way of computing it; the loop in `mnist_cnn.train` does not know which it has.
"""

from __future__ import annotations

from typing import Protocol, cast

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from mnist_cnn.batches import Batch
from mnist_cnn.kernels.native import KINDS, NativeKernel, NativeNetwork, NativeSgd
from mnist_cnn.model import GroupedNetwork, MnistCnn
from mnist_cnn.optim import build_optimizer
from mnist_cnn.recipe import Kernels, Recipe


class Step(Protocol):
    """What trains a network."""

    optimizer: Optimizer
    """The recipe's, over all parameters of the network."""

    def __call__(self, batch: Batch) -> Tensor:
        """Leave the gradients of the global batch's mean loss to the optimizer.

        Returns:
            The loss of each of this rank's images, (N,), float32.
        """
        ...


def make_step(
    network: MnistCnn, recipe: Recipe, accelerator: Accelerator, kernels: Kernels
) -> Step:
    """The step by which `network` is trained, on the accelerator's device."""
    if kernels not in KINDS:
        return TorchStep(network, recipe, accelerator, kernels)
    return NativeStep(network, recipe, accelerator, kernels)


def evaluated_by(network: MnistCnn, kernels: Kernels) -> nn.Module:
    """`network` as it is computed for evaluation."""
    return NativeNetwork(network, kernels) if kernels in KINDS else network


def _group(recipe: Recipe, accelerator: Accelerator) -> tuple[int, int]:
    """Images of a whole batch's share of this rank, and of its groups for batch norm."""
    share = recipe.batch_size // accelerator.num_processes
    return share, min(recipe.norm_batch_size or share, share)


def with_batch_norm_groups(
    network: MnistCnn, recipe: Recipe, accelerator: Accelerator
) -> nn.Module:
    """`network` as this rank goes through its share of a batch."""
    share, group = _group(recipe, accelerator)
    return GroupedNetwork(network, group) if group < share else network


def memory_layout(recipe: Recipe) -> torch.memory_format:
    """The layout of activations that the recipe wants, as torch names it."""
    if recipe.memory_format == "channels_last":
        return torch.channels_last
    return torch.contiguous_format


class TorchStep:
    """By torch's operators, fused or not; the ranks joined by DistributedDataParallel."""

    def __init__(
        self, network: MnistCnn, recipe: Recipe, accelerator: Accelerator, kernels: Kernels
    ) -> None:
        self._accelerator = accelerator
        self._label_smoothing = recipe.label_smoothing
        self._layout = memory_layout(recipe)
        network.to(memory_format=self._layout)
        accelerator.free_memory()  # what an earlier run in this process had prepared
        self._module = accelerator.prepare(with_batch_norm_groups(network, recipe, accelerator))
        if isinstance(self._module, DistributedDataParallel):
            # Each rank keeps statistics of its own share, which the loop joins before it evaluates;
            # by default rank 0's would replace the others' at every step, by a collective.
            self._module.broadcast_buffers = False
        self.optimizer = build_optimizer(network.parameters(), recipe)
        self._losses = self._losses_of
        if kernels == "inductor":
            self._losses = torch.compile(self._losses_of, dynamic=False)

    def __call__(self, batch: Batch) -> Tensor:
        """See `Step`."""
        losses = self._losses(batch.images, batch.labels)
        # The ranks' gradients are averaged: weighted so, they are the global batch's mean even
        # where its last part is not the same for all.
        self._accelerator.backward(losses.mean() * batch.weight)
        return losses.detach()

    def _losses_of(self, images: Tensor, labels: Tensor) -> Tensor:
        logits = self._module(images.contiguous(memory_format=self._layout))
        return F.cross_entropy(
            logits, labels, label_smoothing=self._label_smoothing, reduction="none"
        )


class NativeStep:
    """By the compiled code of `mnist_cnn.kernels.native`; one collective a step joins the ranks."""

    def __init__(
        self, network: MnistCnn, recipe: Recipe, accelerator: Accelerator, kernels: Kernels
    ) -> None:
        self._accelerator = accelerator
        _, group = _group(recipe, accelerator)
        self._native = NativeKernel(network, group, kernels, recipe.label_smoothing)
        self._parameters = self._native.parameters
        self.optimizer: Optimizer
        if recipe.optimizer == "sgd":
            self.optimizer = NativeSgd(
                self._parameters,
                recipe.peak_learning_rate,
                recipe.momentum,
                recipe.weight_decay,
            )
        else:
            self.optimizer = build_optimizer([self._parameters], recipe)

    def __call__(self, batch: Batch) -> Tensor:
        """See `Step`."""
        losses = self._native(batch.images, batch.labels, batch.weight)
        gradient = self._native.gradient
        if self._accelerator.num_processes > 1:
            gradient = cast(Tensor, self._accelerator.reduce(gradient, "mean"))
        self._parameters.grad = gradient
        return losses
