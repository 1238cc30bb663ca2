"""The network: 17,506 parameters, three 3x3 stages with 1x1 transitions and one skip connection.

Source: the original specification, and the public repository it comes from for the skip
connection: the stem's activation, subsampled by two along each side, is added after the first
transition.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

PARAMETERS = 17_506
"""Number of trainable parameters of the network."""
PARAMETER_LIMIT = 20_000
"""The benchmark's networks have fewer parameters than this."""


class ConvBlock(nn.Module):
    """3x3 convolution, batch norm, ReLU, dropout; the image size stays the same."""

    def __init__(self, inputs: int, outputs: int, dropout: float, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        # A Dropout of probability 0 still draws its mask, which takes a quarter of a CPU step.
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H, W)."""
        return cast(Tensor, self.dropout(torch.relu_(self.norm(self.conv(x)))))


class Transition(nn.Module):
    """1x1 convolution, batch norm, max-pool by two, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H/2, W/2)."""
        # ReLU is monotonic, so it commutes with max: pooling first gives the same values and
        # gradients for a quarter of the ReLU's work.
        return torch.relu_(cast(Tensor, self.pool(self.norm(self.conv(x)))))


class MnistCnn(nn.Module):
    """The network of the original specification.

    Args:
        dropout: probability that an activation after one of the four 3x3 blocks is set to zero.
    """

    def __init__(self, dropout: float = 0.008) -> None:
        super().__init__()
        self.stem = ConvBlock(1, 18, dropout)
        self.block1 = ConvBlock(18, 32, dropout)
        self.transition1 = Transition(32, 18)
        self.block2 = ConvBlock(18, 32, dropout, dilation=2)
        self.transition2 = Transition(32, 18)
        self.block3 = ConvBlock(18, 32, dropout)
        self.classifier = nn.Conv2d(32, 10, 1, bias=False)
        self.classifier_norm = nn.BatchNorm2d(10)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores.

        Args:
            images: normalised images, (N, 1, 28, 28), float.

        Returns:
            Logits, (N, 10). They are means of ReLU outputs, so they are never negative.
        """
        stem = self.stem(images)
        x = self.transition1(self.block1(stem))
        # Not in place: the ReLU's backward pass reads its own output.
        x = x + stem[:, :, ::2, ::2]
        x = self.transition2(self.block2(x))
        x = self.block3(x)
        x = torch.relu_(self.classifier_norm(self.classifier(x)))
        return x.mean(dim=(2, 3))


class GroupedNetwork(nn.Module):
    """`network`, which takes a training batch in groups; batch norm treats each as a batch.

    The plain way: a forward pass a group. It judges the kernels, in `mnist_cnn.parity` and in
    tests; `mnist_cnn.batch_norm.GroupedBatchNorm2d` computes the same in one pass.

    Args:
        network: network to train.
        group: images in a group; the last one may have fewer.
    """

    def __init__(self, network: nn.Module, group: int) -> None:
        super().__init__()
        self.network = network
        self._group = group

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, 28, 28) to logits (N, 10)."""
        groups = images.split(self._group) if self.training else (images,)
        return torch.cat([self.network(group) for group in groups])


def parameter_count(model: nn.Module) -> int:
    """Trainable parameters of `model`."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def build_model(dropout: float) -> MnistCnn:
    """A freshly initialised network, checked against the benchmark's limit.

    Raises:
        AssertionError: the network does not have `PARAMETERS` parameters.
    """
    model = MnistCnn(dropout)
    parameters = parameter_count(model)
    assert parameters == PARAMETERS < PARAMETER_LIMIT, f"{parameters} parameters"
    return model
