"""Batch norm's running statistics, computed again from undistorted images before an evaluation.

The running statistics of training are those of the images trained on: distorted and, where the
recipe selects images, mostly hard ones. Images to evaluate are neither. Sources: "precise batch
norm" (Wu & Johnson 2021, section 3), torch.optim.swa_utils.update_bn.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mnist_cnn.augment import normalise
from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import Split
from mnist_cnn.engine.ema import floats
from mnist_cnn.engine.step import memory_layout
from mnist_cnn.kernels.native import KINDS, NativeNetwork
from mnist_cnn.model import MnistCnn
from mnist_cnn.seeds import derived_seed

_BATCH = 256
"""Images whose statistics are taken together; those of all batches are averaged. Fewer cost a GPU
more launches, more cost a CPU memory."""


def choose_statistics_images(data: Split, context: TrainingContext, seed: int) -> Tensor:
    """Choose the training images of `measure_statistics` at random, the same on every rank.

    Returns:
        (K, 28, 28), uint8, on the device, with K of the recipe's `statistics_images`.
    """
    generator = torch.Generator().manual_seed(derived_seed(seed, "statistics"))
    order = torch.randperm(len(data.train_images), generator=generator)
    chosen = order[: context.recipe.statistics_images]
    return data.train_images[chosen].to(context.accelerator.device)


@torch.no_grad()
def measure_statistics(network: MnistCnn, pixels: Tensor, context: TrainingContext) -> None:
    """Replace the running statistics of `network` by those of the images; every rank calls this.

    The ranks take whole batches in turn, so that their number does not change the result.

    Args:
        network: on the device; only its running means and variances change.
        pixels: undistorted images, the same on every rank, (K, 28, 28), uint8, on the device.
        context: normalisation, precision, kernels and ranks.
    """
    accelerator = context.accelerator
    batches = normalise(pixels, context.recipe).unsqueeze(1).split(_BATCH)
    share = batches[accelerator.process_index :: accelerator.num_processes]
    if share and context.kernels in KINDS:
        NativeNetwork(network, context.kernels).measure_statistics(torch.cat(share), _BATCH)
    elif share:
        _measure(network, share, context)
    if accelerator.num_processes > 1:
        weight = len(share) * accelerator.num_processes / len(batches)
        for buffer in network.buffers():
            if buffer.is_floating_point():
                buffer.copy_(accelerator.reduce(buffer * weight, "mean"))


def _measure(network: MnistCnn, batches: tuple[Tensor, ...], context: TrainingContext) -> None:
    """By torch's operators, in a copy whose batch norm is the ordinary one."""
    with torch.device("meta"):  # draws no initial weights
        copy = MnistCnn(dropout=0.0)
    copy.to_empty(device=batches[0].device)
    layout = memory_layout(context.recipe)
    copy.to(memory_format=layout)
    torch._foreach_copy_(floats(copy), floats(network))
    layers = [module for module in copy.modules() if isinstance(module, nn.BatchNorm2d)]
    for layer in layers:
        layer.reset_running_stats()
        # torch would read it to know the share of a batch: each layer would wait for the device.
        layer.num_batches_tracked = None
    copy.train()
    for number, images in enumerate(batches, start=1):
        for layer in layers:
            layer.momentum = 1.0 / number  # the average of all batches
        with context.accelerator.autocast():
            copy(images.contiguous(memory_format=layout))
    torch._foreach_copy_(floats(network), floats(copy))
