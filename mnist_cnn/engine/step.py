"""A training step without the optimizer's update: from a batch to its losses and gradients.

Each way to compute it is a class; the loop in `mnist_cnn.train` works with any of them.
"""

from __future__ import annotations

from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from mnist_cnn.batch_norm import (
    group_batch_norm,
    share_batch_norm,
    shares_batch_norm,
    unshared_reason,
)
from mnist_cnn.batches import Batch
from mnist_cnn.context import TrainingContext
from mnist_cnn.errors import UsageError
from mnist_cnn.kernels.native import KINDS, NativeKernel, NativeNetwork, NativeSgd
from mnist_cnn.model import MnistCnn
from mnist_cnn.optim import build_optimizer
from mnist_cnn.recipe import Kernels, Recipe


class Step(Protocol):
    """Computes the losses and gradients of a batch."""

    optimizer: Optimizer
    """The recipe's optimizer, over all parameters of the network."""

    def __call__(self, batch: Batch) -> Tensor:
        """Set the gradients of the global batch's mean loss, for the optimizer.

        Returns:
            The loss of each image of this rank, (N,), float32.
        """
        ...


def make_step(network: MnistCnn, context: TrainingContext) -> Step:
    """The step that trains `network` on the context's device, with its kernels.

    Raises:
        UsageError: the kernels would normalise each rank's share of a batch by itself.
    """
    reason = unshared_reason(context.recipe, context.accelerator.num_processes)
    if context.kernels != "torch" and reason:
        raise UsageError(f"kernels {context.kernels} cannot train {context.recipe.name}: {reason}")
    if context.kernels in KINDS:
        return NativeStep(network, context)
    return TorchStep(network, context)


def evaluated_by(network: MnistCnn, kernels: Kernels) -> nn.Module:
    """The module that computes `network` with `kernels` in evaluations."""
    return NativeNetwork(network, kernels) if kernels in KINDS else network


def _group(context: TrainingContext) -> tuple[int, int]:
    """Images of a whole batch that are this rank's, and images of a batch-norm group in them."""
    share = context.recipe.batch_size // context.accelerator.num_processes
    return share, min(context.recipe.norm_batch_size or share, share)


def set_up_batch_norm(network: MnistCnn, context: TrainingContext) -> None:
    """Make batch norm take the images that the recipe says: of a group, or of all ranks."""
    share, group = _group(context)
    if shares_batch_norm(context.recipe, context.accelerator.num_processes):
        share_batch_norm(network)
    elif group < share:
        group_batch_norm(network, group)


def memory_layout(recipe: Recipe) -> torch.memory_format:
    """The recipe's layout of activations, as torch names it."""
    if recipe.memory_format == "channels_last":
        return torch.channels_last
    return torch.contiguous_format


class TorchStep:
    """Uses torch's operators, fused or not; DistributedDataParallel joins the ranks."""

    def __init__(self, network: MnistCnn, context: TrainingContext) -> None:
        recipe, accelerator = context.recipe, context.accelerator
        self._accelerator = accelerator
        self._label_smoothing = recipe.label_smoothing
        self._layout = memory_layout(recipe)
        network.to(memory_format=self._layout)
        set_up_batch_norm(network, context)
        accelerator.free_memory()  # of what an earlier run in this process prepared
        self._module = accelerator.prepare(network)
        if isinstance(self._module, DistributedDataParallel):
            # With groups each rank keeps the statistics of its own share, and the loop joins them
            # before it evaluates; else all ranks have the same. By default rank 0's would replace
            # them at every step, by a collective.
            self._module.broadcast_buffers = False
        self.optimizer = build_optimizer(network.parameters(), recipe)
        self._losses = self._image_losses
        if context.kernels == "inductor":
            self._losses = torch.compile(self._image_losses, dynamic=False)

    def __call__(self, batch: Batch) -> Tensor:
        """See `Step`."""
        losses = self._losses(batch.images, batch.labels)
        # The ranks' gradients are averaged. The weight makes that the mean of the global batch,
        # also where the ranks' shares of the last batch differ in size.
        self._accelerator.backward(losses.mean() * batch.weight)
        return losses.detach()

    def _image_losses(self, images: Tensor, labels: Tensor) -> Tensor:
        logits = self._module(images.contiguous(memory_format=self._layout))
        return F.cross_entropy(
            logits, labels, label_smoothing=self._label_smoothing, reduction="none"
        )


class NativeStep:
    """Uses the compiled code of `mnist_cnn.kernels.native`; one collective joins the ranks."""

    def __init__(self, network: MnistCnn, context: TrainingContext) -> None:
        recipe = context.recipe
        self._accelerator = context.accelerator
        _, group = _group(context)
        self._kernel = NativeKernel(network, group, context.kernels, recipe.label_smoothing)
        self._parameters = self._kernel.parameters
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
        losses = self._kernel(batch.images, batch.labels, batch.weight)
        gradient = self._kernel.gradient
        if self._accelerator.num_processes > 1:
            gradient = cast(Tensor, self._accelerator.reduce(gradient, "mean"))
        self._parameters.grad = gradient
        return losses
