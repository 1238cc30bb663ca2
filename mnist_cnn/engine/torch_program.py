"""A captured step and evaluation by torch's operators."""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnist_cnn.augment import Distortions, augment
from mnist_cnn.context import TrainingContext
from mnist_cnn.engine.ema import floats
from mnist_cnn.engine.step import memory_layout, set_up_batch_norm
from mnist_cnn.evaluation import count
from mnist_cnn.kernels.buffers import DeviceBuffers
from mnist_cnn.model import MnistCnn, build_model
from mnist_cnn.optim import build_optimizer

EVALUATION_BATCH = 2_500
"""Images in a forward pass of a captured evaluation."""


class TorchProgram:
    """See `mnist_cnn.engine.graph.StepProgram`; kernels "inductor" fuses the operators.

    Args:
        context: what is trained.
        buffers: tensors that it reads and writes.
    """

    def __init__(self, context: TrainingContext, buffers: DeviceBuffers) -> None:
        recipe, device = context.recipe, buffers.images.device
        self._context, self._recipe, self._buffers = context, recipe, buffers
        self._batch_positions = torch.arange(recipe.batch_size, device=device)
        self._layout = memory_layout(recipe)
        network = build_model(recipe.dropout).to(device)
        network.to(memory_format=self._layout)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.num_batches_tracked = None  # nothing reads it, and counting is a launch
        set_up_batch_norm(network, context)
        self._network = network
        self._average = _GraphEma(network) if recipe.average_decay > 0 else None
        self._forward = self._image_losses
        if context.kernels == "inductor":
            self._forward = torch.compile(self._image_losses, dynamic=False, fullgraph=True)
        self._learning_rate = torch.ones((), device=device)
        self._optimizer = build_optimizer(network.parameters(), recipe)
        self._optimizer.param_groups[0]["lr"] = self._learning_rate
        self._velocities: list[Tensor] = []
        for parameter in network.parameters():
            # From zero, torch's ordinary step equals its special first step, so one capture does.
            velocity = torch.zeros_like(parameter)
            self._optimizer.state[parameter]["momentum_buffer"] = velocity
            self._velocities.append(velocity)

    @torch.no_grad()
    def load(self, model: MnistCnn) -> None:
        """See `StepProgram`."""
        self._network.train()
        torch._foreach_copy_(floats(self._network), floats(model))
        torch._foreach_zero_(self._velocities)
        if self._average:
            self._average.restart()

    def train(self, size: int) -> None:
        """See `StepProgram`."""
        buffers = self._buffers
        positions = self._batch_positions[:size] + buffers.position
        chosen = buffers.order.index_select(0, positions)
        losses = self._forward(
            buffers.images.index_select(0, chosen),
            buffers.labels.index_select(0, chosen),
            buffers.distortions.index_select(0, positions),
        )
        losses.mean().backward()
        with torch.no_grad():
            self._learning_rate.copy_(buffers.learning_rates.index_select(0, buffers.step)[0])
            self._optimizer.step()
            self._optimizer.zero_grad()
            if self._average:
                self._average.follow(buffers.average_weights.index_select(0, buffers.step))
            buffers.losses.index_copy_(0, positions, losses.detach())
            buffers.position.add_(size)
            buffers.step.add_(1)

    @torch.no_grad()
    def evaluate(self) -> None:
        """See `StepProgram`."""
        evaluated, buffers = self._evaluated, self._buffers
        evaluated.eval()
        totals = count(
            evaluated,
            buffers.evaluation_images,
            buffers.evaluation_labels,
            self._context,
            EVALUATION_BATCH,
        )
        buffers.totals.copy_(totals)
        evaluated.train()

    @torch.no_grad()
    def store(self, model: MnistCnn, *, averaged: bool = True) -> None:
        """See `StepProgram`."""
        network = self._evaluated if averaged else self._network
        torch._foreach_copy_(floats(model), floats(network))

    @torch.no_grad()
    def take_statistics(self, model: MnistCnn) -> None:
        """See `StepProgram`."""
        torch._foreach_copy_(floats(self._evaluated), floats(model))

    @property
    def _evaluated(self) -> MnistCnn:
        """The network that an evaluation uses."""
        return self._average.network if self._average else self._network

    def _image_losses(self, pixels: Tensor, labels: Tensor, table: Tensor) -> Tensor:
        """The loss of each image, (N,), with the graph of the gradients."""
        images = augment(pixels, Distortions(table), self._recipe)
        with self._context.accelerator.autocast():
            logits = self._network(images.contiguous(memory_format=self._layout))
        return F.cross_entropy(
            logits.float(), labels, label_smoothing=self._recipe.label_smoothing, reduction="none"
        )


class _GraphEma:
    """The moving average of a network, with a decay that is read on the device."""

    def __init__(self, network: MnistCnn) -> None:
        self._network_tensors = floats(network)
        self.network, self._joined = self._copy_of(network)
        latest, self._latest_joined = self._copy_of(network)
        self._latest = floats(latest)

    def restart(self) -> None:
        """Take the network's present values: a run that diverged has left NaN."""
        torch._foreach_copy_(floats(self.network), self._network_tensors)

    def follow(self, weight: Tensor) -> None:
        """Move by `weight`, (1,), towards the network's present values."""
        # Two launches, whatever the number of tensors.
        torch._foreach_copy_(self._latest, self._network_tensors)
        self._joined.lerp_(self._latest_joined, weight)

    def _copy_of(self, network: MnistCnn) -> tuple[MnistCnn, Tensor]:
        """A copy whose weights and statistics are views of one tensor, and that tensor."""
        copy = deepcopy(network).requires_grad_(requires_grad=False)
        tensors = [*copy.parameters(), *copy.buffers()]
        joined = tensors[0].new_empty(sum(tensor.numel() for tensor in tensors))
        start = 0
        for tensor in tensors:
            view = joined.as_strided(tensor.shape, tensor.stride(), start)
            view.copy_(tensor)
            tensor.data = view
            start += tensor.numel()
        return copy, joined
