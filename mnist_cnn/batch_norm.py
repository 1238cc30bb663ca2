"""Batch norm over other images than those of one forward pass: groups of them, or all ranks' too.

`GroupedBatchNorm2d` treats each group of images as a batch of its own, while everything else takes
the whole batch at once: 128 images in groups of 16 are one forward pass, not eight.

`SharedBatchNorm2d` takes the images of all ranks, so that more processes train the same problem.
torch's SyncBatchNorm does the same on GPUs only; this runs on every device and process group.
A layer exchanges its statistics in the forward pass and two sums in the backward pass. The ranks
may have different numbers of images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable

from mnist_cnn.recipe import Recipe

_DIMENSIONS = (0, 2, 3)
"""All dimensions of an activation but its channels."""


class _OtherBatchNorm2d(nn.BatchNorm2d):
    """A layer that takes over the parameters and statistics of an ordinary one.

    They keep their addresses and names.
    """

    def __init__(self, layer: nn.BatchNorm2d) -> None:
        super().__init__(layer.num_features, layer.eps, layer.momentum)
        self.weight, self.bias = layer.weight, layer.bias
        self.running_mean, self.running_var = layer.running_mean, layer.running_var
        self.num_batches_tracked = layer.num_batches_tracked
        self.train(layer.training)


class GroupedBatchNorm2d(_OtherBatchNorm2d):
    """Batch norm that treats each group of images of a training batch as a batch of its own.

    The running statistics move through the groups in turn. Evaluation is torch's.

    Args:
        layer: an ordinary layer.
        group: images in a group; the last one of a batch may have fewer.
    """

    def __init__(self, layer: nn.BatchNorm2d, group: int) -> None:
        super().__init__(layer)
        self._group = group

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 the name of torch's own
        """(N, channels, H, W) to the same shape and memory layout."""
        if not self.training or len(input) <= self._group:
            return super().forward(input)
        if input.is_cpu and not torch.compiler.is_compiling():
            return self._normalise_in_turn(input)
        return self._normalise_at_once(input)

    def _normalise_in_turn(self, images: Tensor) -> Tensor:
        """By torch's kernel, group by group.

        On a CPU a group's values stay in cache from its statistics to its result, and kernels cost
        little to start.
        """
        self._count_batches(-(-len(images) // self._group))
        normalise = cast(Any, _NormInTurn.apply)
        statistics = self.running_mean, self.running_var
        return cast(
            Tensor,
            normalise(
                images, self.weight, self.bias, *statistics, self._group, self.momentum, self.eps
            ),
        )

    def _normalise_at_once(self, images: Tensor) -> Tensor:
        """By one call of torch's kernel, to which a channel of each group is a channel.

        On a GPU a kernel costs more to start than a group's values cost to copy; a compiler fuses
        the copies.
        """
        groups, rest = divmod(len(images), self._group)
        if rest:
            whole = groups * self._group
            return torch.cat([self(images[:whole]), self(images[whole:])])
        self._count_batches(groups)
        by_group = images.unflatten(0, (groups, self._group)).transpose(1, 2)
        shape = by_group.shape
        mean = self.weight.new_zeros(groups * shape[1])
        variance = torch.zeros_like(mean)
        normalised = F.batch_norm(
            by_group.reshape(1, groups * shape[1], -1, shape[-1]),
            mean,
            variance,
            self.weight.repeat(groups),
            self.bias.repeat(groups),
            training=True,
            momentum=1.0,  # leaves the batch's own statistics
            eps=self.eps,
        ).view(shape)
        self._move_statistics(mean.view(groups, -1), variance.view(groups, -1))
        if images.is_contiguous(memory_format=torch.channels_last):
            normalised = normalised.contiguous(memory_format=torch.channels_last_3d)
        return normalised.transpose(1, 2).flatten(0, 1)

    @torch.no_grad()
    def _move_statistics(self, means: Tensor, variances: Tensor) -> None:
        """Move the running statistics through those of groups, (groups, channels), in turn."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        groups = len(means)
        remaining = 1 - self.momentum
        # On the device: a captured step must not copy from the host.
        later_groups = torch.arange(groups - 1, -1, -1, dtype=means.dtype, device=means.device)
        shares = (self.momentum * remaining**later_groups).unsqueeze(1)
        for running, statistics in ((self.running_mean, means), (self.running_var, variances)):
            running.mul_(remaining**groups).add_((shares * statistics).sum(0))

    def _count_batches(self, groups: int) -> None:
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(groups)


class SharedBatchNorm2d(_OtherBatchNorm2d):
    """Batch norm whose batch in training is that of all ranks; every rank calls it.

    Args:
        layer: an ordinary layer.
    """

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
    _replace_batch_norms(network, SharedBatchNorm2d)


def group_batch_norm(network: nn.Module, group: int) -> None:
    """Make every batch norm of `network` treat each `group` images as a batch, in place.

    The parameters, statistics and names of its state stay the same.
    """
    _replace_batch_norms(network, lambda layer: GroupedBatchNorm2d(layer, group))


def _replace_batch_norms(
    network: nn.Module, replacement_of: Callable[[nn.BatchNorm2d], nn.BatchNorm2d]
) -> None:
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, replacement_of(child))


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


class _NormInTurn(torch.autograd.Function):
    """torch's batch norm of each group of images in turn, written into one result."""

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        group: int,
        momentum: float,
        eps: float,
    ) -> Tensor:
        """Normalise, and move the running statistics."""
        result = torch.empty_like(images)
        means, deviations = [], []
        for values, normalised in zip(images.split(group), result.split(group), strict=True):
            mean, inverse_deviation = weight.new_empty(0), weight.new_empty(0)
            # Not F.batch_norm: joining the groups' results would be one more pass over memory.
            torch.native_batch_norm(
                values,
                weight,
                bias,
                running_mean,
                running_var,
                True,
                momentum,
                eps,
                out=(normalised, mean, inverse_deviation),
            )
            means.append(mean)
            deviations.append(inverse_deviation)
        ctx.save_for_backward(images, weight, torch.stack(means), torch.stack(deviations))
        ctx.group, ctx.eps = group, eps
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of `images`, `weight` and `bias`."""
        images, weight, means, deviations = ctx.saved_tensors
        groups = zip(
            gradient.split(ctx.group), images.split(ctx.group), means, deviations, strict=True
        )
        by_group = [
            torch.ops.aten.native_batch_norm_backward(
                group_gradient,
                values,
                weight,
                None,
                None,
                mean,
                inverse_deviation,
                True,
                ctx.eps,
                [True, True, True],
            )
            for group_gradient, values, mean, inverse_deviation in groups
        ]
        images_gradients, weight_gradients, bias_gradients = zip(*by_group, strict=True)
        return (
            torch.cat(images_gradients),
            torch.stack(weight_gradients).sum(0),
            torch.stack(bias_gradients).sum(0),
            *(None,) * 5,
        )


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
