"""Batch norm over the images of all ranks, so that more processes train the same problem.

torch's SyncBatchNorm does the same on GPUs only; this runs on every device and process group.
A layer exchanges its statistics in the forward pass and two sums in the backward pass. The ranks
may have different numbers of images.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, distributed, nn

from mnist_cnn.recipe import Recipe

_DIMENSIONS = (0, 2, 3)
"""All dimensions of an activation but its channels."""


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose batch in training is that of all ranks; every rank calls it.

    Args:
        layer: an ordinary layer, whose parameters and statistics it takes over. They keep their
            addresses.
    """

    def __init__(self, layer: nn.BatchNorm2d) -> None:
        super().__init__(layer.num_features, layer.eps, layer.momentum)
        self.weight, self.bias = layer.weight, layer.bias
        self.running_mean, self.running_var = layer.running_mean, layer.running_var
        self.num_batches_tracked = layer.num_batches_tracked
        self.train(layer.training)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 the name of torch's own
        """(N, channels, H, W), this rank's share of the batch, to the same shape."""
        if not self.training:
            return super().forward(input)
        # Apart from autograd, which `_SharedNorm` replaces.
        mean, variance, count = _batch_statistics(input.detach().to(self.weight.dtype))
        self._update_statistics(mean, variance, count)
        inverse_deviation = torch.rsqrt(variance + self.eps)
        normalise = cast(Any, _SharedNorm.apply)
        return cast(
            Tensor, normalise(input, self.weight, self.bias, mean, inverse_deviation, count)
        )

    @torch.no_grad()
    def _update_statistics(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics as torch does: the variance without bias."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


def shares_batch_norm(recipe: Recipe, processes: int) -> bool:
    """Whether batch norm takes the images of several ranks together."""
    return processes > 1 and not recipe.has_norm_groups


def unshared_reason(recipe: Recipe, processes: int) -> str | None:
    """Why other code than torch's operators cannot train a recipe on that many ranks, or None."""
    if shares_batch_norm(recipe, processes):
        return "only torch's operators take batch norm over the images of several processes"
    return None


def share_batch_norm(network: nn.Module) -> None:
    """Make every batch norm of `network` take the images of all ranks, in place.

    The parameters, statistics and names of its state stay the same.
    """
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, SharedBatchNorm2d(child))


@torch.no_grad()
def _batch_statistics(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance by channel, (channels,), and number of values, over all ranks.

    Each rank gathers the statistics of all and joins them in the same order, so that all have the
    same bits. Joining variances loses nothing where the mean is large, as sums of squares would.
    Source: Chan, Golub & LeVeque 1983.
    """
    variance, mean = torch.var_mean(images, dim=_DIMENSIONS, correction=0)
    own = torch.cat([mean, variance, mean.new_full((1,), images.numel() // images.shape[1])])
    gathered = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(gathered, own)
    table = torch.stack(gathered)
    means, variances = table[:, :-1].chunk(2, dim=1)
    counts = table[:, -1:]
    count = counts.sum()
    shares = counts / count
    mean = (shares * means).sum(0)
    return mean, (shares * (variances + (means - mean).square())).sum(0), count


class _SharedNorm(torch.autograd.Function):
    """Normalises with statistics of all ranks; the gradient goes through these to all images."""

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        inverse_deviation: Tensor,
        count: Tensor,
    ) -> Tensor:
        """Scale and shift, as precisely as `weight`; the result has the type of `images`."""
        ctx.save_for_backward(images, weight, mean, inverse_deviation, count)
        scale = weight * inverse_deviation
        return (images * _wide(scale) + _wide(bias - mean * scale)).to(images.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of `images`, `weight` and `bias`; those of the last two are this rank's."""
        images, weight, mean, inverse_deviation, count = ctx.saved_tensors
        gradient = gradients[0].to(weight.dtype)
        normalised = (images - _wide(mean)) * _wide(inverse_deviation)
        own = torch.stack(
            [gradient.sum(_DIMENSIONS), (gradient * normalised).sum(_DIMENSIONS)],
        )
        total = own.clone()
        distributed.all_reduce(total)
        bias_mean, weight_mean = total / count
        through = gradient - _wide(bias_mean) - normalised * _wide(weight_mean)
        images_gradient = (through * _wide(weight * inverse_deviation)).to(images.dtype)
        return images_gradient, own[1], own[0], None, None, None


def _wide(channels: Tensor) -> Tensor:
    """(channels,) to (1, channels, 1, 1)."""
    return channels.view(1, -1, 1, 1)
