"""Whether a device computes what the CPU does: compares a batch and a step's gradients.

Some devices trained fast and computed something wrong. On MPS it was batch norm's gradient with
channels last (https://github.com/pytorch/pytorch/issues/175189) and arithmetic on views into a
table (https://github.com/pytorch/pytorch/issues/191929).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from mnist_cnn.batches import Batch, Batches
from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import Split
from mnist_cnn.engine.step import make_step
from mnist_cnn.kernels.native import KINDS
from mnist_cnn.model import GroupedNetwork
from mnist_cnn.recipe import Kernels, Precision, Recipe
from mnist_cnn.train import seeded_model

IMAGES = 128
"""Images of the batch compared; in a smaller one less rounding averages out: see `ALLOWED`."""
IMAGES_ALLOWED = 0.1
"""Allowed difference of the distorted images: rounding may choose another nearest pixel."""
ALLOWED: dict[Precision, float] = {"fp32": 0.01, "bf16": 0.5, "fp16": 0.1}
"""Allowed difference of a gradient, for rounding. In bf16 on CPUs, with the recipes here and all
kernels, the whole gradient differed by 0.12 to 0.16 and the worst parameter's by 0.16 to 0.25; for
a batch of 32 images by 0.15 to 0.19 and 0.21 to 0.33."""
LOSS_ALLOWED = 0.1
"""Allowed difference of the losses, as a share of a gradient's; none exceeded 0.0003."""
_FLOOR = 0.1
"""Differences of a parameter's gradient are relative to at least this share of the whole one."""


@dataclass(frozen=True, slots=True)
class Parity:
    """Relative differences of a device from the CPU in fp32; lengths are Euclidean."""

    images: float
    """Relative difference of a batch's distorted, normalised images."""
    loss: float
    """Relative difference of the mean losses."""
    gradient: float
    """Relative difference of the gradients of all parameters together."""
    parameter: str
    """Name of the parameter whose gradient differed most."""
    parameter_gradient: float
    """Relative difference of that parameter's gradient."""
    allowed: float
    """Largest allowed difference of a gradient; that of the loss is a tenth of it."""

    @property
    def problem(self) -> str | None:
        """Which difference is too large, the most specific first; None where none is."""
        bounds = (
            ("the images of a batch", self.images, IMAGES_ALLOWED),
            (f"the gradient of {self.parameter}", self.parameter_gradient, self.allowed),
            ("the gradient", self.gradient, self.allowed),
            ("the loss", self.loss, LOSS_ALLOWED * self.allowed),
        )
        for quantity, difference, allowed in bounds:
            # "not <=" also refuses NaN, which ">" would let pass.
            if not difference <= allowed:
                return (
                    f"{quantity} is {difference:.0%} off the CPU's, where {allowed:.0%} is allowed"
                )
        return None


def compare_with_cpu(context: TrainingContext, data: Split, precision: Precision) -> Parity | None:
    """Compare a step of the device with the same step on the CPU in fp32; each rank does.

    Args:
        context: what will be trained. This package's compiled code is compared itself; instead of
            torch's compiler and Triton, the device's operators are.
        data: its first training images are used.
        precision: the accelerator's.

    Returns:
        The differences; None where the CPU's operators would be compared with themselves.
    """
    kernels: Kernels = context.kernels if context.kernels in KINDS else "torch"
    accelerator = context.accelerator
    if accelerator.device.type == "cpu" and kernels == "torch" and precision == "fp32":
        return None
    cpu = torch.device("cpu")
    recipe = replace(
        context.recipe, dropout=0.0, batch_size=IMAGES, pipeline="resident", selected_share=1
    )
    device_batch = _second_batch(recipe, data, accelerator.device, kernels)
    cpu_batch = _second_batch(recipe, data, cpu, "torch")
    names, sizes, cpu_loss, cpu_gradient = _cpu_step(recipe, cpu_batch)
    loss, gradient = _device_step(TrainingContext(recipe, accelerator, kernels), device_batch)
    differences = _parameter_differences(cpu_gradient.split(sizes), gradient.split(sizes))
    by_name = dict(zip(names, differences, strict=True))
    # A NaN counts as the largest.
    worst = max(by_name, key=lambda name: (math.isnan(by_name[name]), by_name[name]))
    return Parity(
        images=_difference(cpu_batch.images, device_batch.images.to(cpu)),
        loss=abs(loss - cpu_loss) / cpu_loss,
        gradient=_difference(cpu_gradient, gradient),
        parameter=worst,
        parameter_gradient=by_name[worst],
        allowed=ALLOWED[precision],
    )


class _SingleRank:
    """The parts of an accelerator that `Batches` uses, for one rank that takes all images."""

    num_processes, process_index = 1, 0

    def __init__(self, device: torch.device) -> None:
        self.device = device


def _second_batch(recipe: Recipe, data: Split, device: torch.device, kernels: Kernels) -> Batch:
    """The second batch of an epoch: its rows of tables do not start at the tables' start."""
    first_images = replace(
        data,
        train_images=data.train_images[: 2 * IMAGES],
        train_labels=data.train_labels[: 2 * IMAGES],
    )
    accelerator = cast(Accelerator, _SingleRank(device))
    batches = Batches(first_images, TrainingContext(recipe, accelerator, kernels), 0)
    batches.load()
    return list(batches.batches(batches.epoch(1)))[1]


def _cpu_step(recipe: Recipe, batch: Batch) -> tuple[list[str], list[int], float, Tensor]:
    """Names and sizes of the parameters, mean loss, and gradients (17506,), float64."""
    network = seeded_model(recipe, 0).train()
    group = min(recipe.norm_batch_size or IMAGES, IMAGES)
    with torch.autocast("cpu", enabled=False):
        logits = GroupedNetwork(network, group).train()(batch.images)
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=recipe.label_smoothing)
        loss.backward()
    parameters = dict(network.named_parameters())
    gradients = [p.grad.flatten() for p in parameters.values() if p.grad is not None]
    sizes = [p.numel() for p in parameters.values()]
    return list(parameters), sizes, loss.item(), torch.cat(gradients).double()


def _device_step(context: TrainingContext, batch: Batch) -> tuple[float, Tensor]:
    """Mean loss, and gradients (17506,), float64, on the CPU; all ranks have the same batch."""
    accelerator = context.accelerator
    recipe = replace(context.recipe, batch_size=IMAGES * accelerator.num_processes)
    network = seeded_model(recipe, 0).to(accelerator.device).train()
    step = make_step(network, replace(context, recipe=recipe))
    losses = step(batch)
    parameters = [p for group in step.optimizer.param_groups for p in group["params"]]
    gradient = torch.cat([p.grad.detach().flatten() for p in parameters]).cpu().double()
    if accelerator.scaler is not None:
        gradient /= accelerator.scaler.get_scale()
    accelerator.free_memory()
    return losses.mean().item(), gradient


def _difference(expected: Tensor, actual: Tensor) -> float:
    """Length of the difference, relative to the length of the expected one."""
    return float((expected - actual).norm() / expected.norm())


def _parameter_differences(expected: tuple[Tensor, ...], actual: tuple[Tensor, ...]) -> list[float]:
    """The same for each parameter; a short gradient's is relative to a share of the whole one."""
    shortest = _FLOOR * float(torch.cat(expected).norm())
    return [
        float((first - second).norm()) / max(float(first.norm()), shortest)
        for first, second in zip(expected, actual, strict=True)
    ]
