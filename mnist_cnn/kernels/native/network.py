"""The network in compiled code: inference, and losses with gradients."""

from __future__ import annotations

import ctypes
from typing import cast

import torch
from torch import Tensor, nn

from mnist_cnn.kernels.native.library import LAYERS, library
from mnist_cnn.model import MnistCnn
from mnist_cnn.recipe import Kernels

_MOMENTUM = 0.1
"""Momentum of batch norm's running statistics, the default of torch.nn.BatchNorm2d."""


class NativeNetwork(nn.Module):
    """Inference of `network` in compiled code.

    Args:
        network: on the CPU, in float32.
        kernels: a kind of compiled code for which `unavailable_reason` is None.
    """

    def __init__(self, network: MnistCnn, kernels: Kernels) -> None:
        super().__init__()
        self.network = network
        self._kernels = kernels
        self._workspace: _Workspace | None = None

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, 28, 28), normalised, to logits (N, 10), float32; with the running statistics."""
        images = images.float().contiguous()
        logits = torch.empty(len(images), 10)
        threads = library().threads()
        if not self._workspace or self._workspace.capacity < threads:
            self._workspace = _Workspace(threads, self._kernels)
        library().step_infer(
            self._workspace.handle,
            _tensors(self.network, gradients=None),
            images.data_ptr(),
            len(images),
            logits.data_ptr(),
        )
        return logits

    def measure_statistics(self, images: Tensor, group: int) -> None:
        """Set the running statistics to the mean of those of groups of images, without dropout.

        Args:
            images: (N, 1, 28, 28), normalised.
            group: images in a group; the last one may have fewer.
        """
        images = images.float().contiguous()
        workspace = _Workspace(min(group, len(images)), self._kernels)
        library().step_measure(
            workspace.handle,
            _tensors(self.network, gradients=None),
            images.data_ptr(),
            len(images),
        )


class NativeKernel:
    """Losses and gradients of `network` in compiled code.

    It joins the network's parameters into one, so that an optimizer updates a single tensor.

    Args:
        network: on the CPU, in float32.
        group: images in a batch-norm group. A larger batch is split into groups; the last group, or
            a smaller batch, may have fewer.
        kernels: a kind of compiled code for which `unavailable_reason` is None.
        label_smoothing: share of a label's mass spread over all ten classes in the loss.
    """

    def __init__(
        self, network: MnistCnn, group: int, kernels: Kernels, label_smoothing: float = 0.0
    ) -> None:
        self.parameters = _joined(network)
        """All parameters of the network, (17506,)."""
        self.gradient = torch.empty_like(self.parameters, requires_grad=False)
        """Gradient of `parameters` for the last batch, (17506,); the next batch overwrites it."""
        self._label_smoothing = label_smoothing
        self._dropout = _dropout(network)
        self._workspace = _Workspace(group, kernels)
        self._network = network  # its tensors must live as long as their addresses are used
        self._tensors = _tensors(network, _views(self.gradient, network))

    def __call__(self, images: Tensor, labels: Tensor, weight: float = 1.0) -> Tensor:
        """Compute the gradient of the batch's mean loss times `weight`, and store it in `gradient`.

        This updates batch norm's running statistics, as torch does. Dropout's probability is
        rounded to a multiple of 1/65536, and its masks differ from torch's.

        Args:
            images: (N, 1, 28, 28), normalised.
            labels: (N,), int64, 0 to 9.
            weight: weight of the loss.

        Returns:
            The cross-entropy of each image, (N,), float32.
        """
        images, labels = images.float().contiguous(), labels.contiguous()
        losses = torch.empty(len(images))
        library().step_train(
            self._workspace.handle,
            self._tensors,
            images.data_ptr(),
            labels.data_ptr(),
            len(images),
            self._label_smoothing,
            weight,
            self._dropout,
            # From torch's generator, so that the run's seed decides the masks.
            int(torch.randint(2**32, ())) if self._dropout else 0,
            _MOMENTUM,
            losses.data_ptr(),
        )
        return losses

    def kept(self, layer: int, image: int, channels: int, side: int) -> Tensor:
        """For tests: the dropout mask of a 3x3 layer for an image of the last batch, of one group.

        Returns:
            (channels, side, side), uint8.
        """
        mask = torch.empty(channels, side, side, dtype=torch.uint8)
        library().step_kept(self._workspace.handle, layer, image, mask.data_ptr())
        return mask


class _Workspace:
    """Memory of compiled code for a batch between its forward and its backward pass.

    Args:
        capacity: images in a group; for inference, the number of threads.
        kernels: the kind of compiled code.
    """

    def __init__(self, capacity: int, kernels: Kernels) -> None:
        self.capacity = capacity
        self.handle = library().step_new(capacity, kernels.encode())

    def __del__(self) -> None:
        library().step_free(self.handle)


def _joined(network: MnistCnn) -> nn.Parameter:
    """Join the network's parameters into one, of which they become views."""
    joined = nn.Parameter(torch.cat([p.detach().flatten() for p in network.parameters()]))
    for parameter, view in zip(network.parameters(), _views(joined.detach(), network), strict=True):
        parameter.data = view
    return joined


def _views(joined: Tensor, network: MnistCnn) -> list[Tensor]:
    """Views of `joined`, one for each of the network's parameters, in their shapes."""
    parameters = list(network.parameters())
    parts = joined.split([parameter.numel() for parameter in parameters])
    return [part.view(p.shape) for part, p in zip(parts, parameters, strict=True)]


def _layers(network: MnistCnn) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    blocks = (
        network.stem,
        network.block1,
        network.transition1,
        network.block2,
        network.transition2,
        network.block3,
    )
    last = (network.classifier, network.classifier_norm)
    return [*((block.conv, block.norm) for block in blocks), last]


def _dropout(network: MnistCnn) -> float:
    layer = network.stem.dropout
    return layer.p if isinstance(layer, nn.Dropout) else 0.0


def _tensors(network: MnistCnn, gradients: list[Tensor] | None) -> ctypes.Array[ctypes.c_void_p]:
    """The addresses of a network's tensors (step.hpp's Tensors), valid as long as the tensors live.

    Args:
        network: on the CPU, in float32.
        gradients: gradients of its parameters, in their order; None for inference.
    """
    layers = _layers(network)
    gradient_by_parameter: dict[int, Tensor] = {}
    if gradients is not None:
        gradient_by_parameter = dict(zip(map(id, network.parameters()), gradients, strict=True))
    parameters: list[Tensor] = [
        *(convolution.weight for convolution, _ in layers),
        *(norm.weight for _, norm in layers),
        *(norm.bias for _, norm in layers),
    ]
    statistics = [cast(Tensor, norm.running_mean) for _, norm in layers]
    statistics += [cast(Tensor, norm.running_var) for _, norm in layers]
    tensors = [*parameters, *statistics]
    if gradient_by_parameter:
        tensors += [gradient_by_parameter[id(parameter)] for parameter in parameters]
    assert all(t.dtype == torch.float32 and t.is_contiguous() for t in tensors)
    addresses = [t.data_ptr() for t in tensors] + [None] * (8 * len(LAYERS) - len(tensors))
    return (ctypes.c_void_p * (8 * len(LAYERS)))(*addresses)
