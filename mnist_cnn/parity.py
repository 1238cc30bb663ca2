"""Whether a device computes what the CPU does: a batch and a step's gradients of both, compared.

Devices have trained fast and wrong. On MPS batch norm's gradient was, with channels last
(https://github.com/pytorch/pytorch/issues/175189), and arithmetic on views into a table
(https://github.com/pytorch/pytorch/issues/191929).
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
from mnist_cnn.data.dataset import Split
from mnist_cnn.engine.step import make_step
from mnist_cnn.kernels.native import KINDS
from mnist_cnn.model import GroupedNetwork
from mnist_cnn.recipe import Kernels, Precision, Recipe
from mnist_cnn.train import seeded_model

IMAGES = 128
"""A batch: of fewer, less of a gradient's rounding averages out; see `ALLOWED`."""
IMAGES_ALLOWED = 0.1
"""Difference of distorted images: where a nearest pixel is chosen, rounding may choose another."""
ALLOWED: dict[Precision, float] = {"fp32": 0.01, "bf16": 0.5, "fp16": 0.1}
"""Difference of a gradient that rounding may account for. In bf16 on CPUs, with the recipes here, a
whole gradient was 0.12 to 0.16 off and the worst parameter's 0.16 to 0.25, by whatever kernels; of
32 images 0.15 to 0.19 and 0.21 to 0.33."""
LOSS_ALLOWED = 0.1
"""Difference of the losses, as a share of what a gradient's may be: none was over 0.0003."""
_FLOOR = 0.1
"""A parameter whose gradient is shorter than this share of the whole is measured by that."""


@dataclass(frozen=True, slots=True)
class Parity:
    """How far off a device is, as shares of what the CPU has in fp32; lengths are Euclidean."""

    images: float
    """Length of the difference of a batch's distorted, normalised images."""
    loss: float
    """Difference of the mean losses."""
    gradient: float
    """Length of the difference of all gradients."""
    parameter: str
    """The parameter that is furthest off."""
    parameter_gradient: float
    """The same of its gradient alone."""
    allowed: float
    """What the last two may be, and the loss's a tenth of it."""

    @property
    def problem(self) -> str | None:
        """What is not as it should be, the most precise; None where nothing is."""
        bounds = (
            ("the images of a batch", self.images, IMAGES_ALLOWED),
            (f"the gradient of {self.parameter}", self.parameter_gradient, self.allowed),
            ("the gradient", self.gradient, self.allowed),
            ("the loss", self.loss, LOSS_ALLOWED * self.allowed),
        )
        for what, value, allowed in bounds:
            # Not "greater": what is no number is no parity either.
            if not value <= allowed:
                return f"{what} is {value:.0%} off the CPU's, where {allowed:.0%} is allowed"
        return None


def parity(
    recipe: Recipe, accelerator: Accelerator, data: Split, precision: Precision, kernels: Kernels
) -> Parity | None:
    """A step of a few training images by the device, and by the CPU in fp32; every rank's.

    Args:
        recipe: what will be trained.
        accelerator: the device and the ranks.
        data: of which the first training images are taken, on the CPU.
        precision: the accelerator's.
        kernels: what will compute a step. Compiled code of this package is probed itself; where
            torch's compiler or Triton computes, the device is, by torch's operators.

    Returns:
        What was found; None where the CPU's operators would be compared with themselves.
    """
    probed: Kernels = kernels if kernels in KINDS else "torch"
    if accelerator.device.type == "cpu" and probed == "torch" and precision == "fp32":
        return None
    cpu = torch.device("cpu")
    recipe = replace(recipe, dropout=0.0, batch_size=IMAGES, pipeline="resident", selected_share=1)
    ours = _batch(recipe, data, accelerator.device, probed)
    theirs = _batch(recipe, data, cpu, "torch")
    names, sizes, loss, gradient = _by_the_cpu(recipe, theirs)
    found_loss, found = _by_the_device(recipe, accelerator, ours, probed)
    of_each = dict(zip(names, _each(gradient.split(sizes), found.split(sizes)), strict=True))
    # Where there is one that is no number, that one.
    worst = max(of_each, key=lambda name: (math.isnan(of_each[name]), of_each[name]))
    return Parity(
        images=_difference(theirs.images, ours.images.to(cpu)),
        loss=abs(found_loss - loss) / loss,
        gradient=_difference(gradient, found),
        parameter=worst,
        parameter_gradient=of_each[worst],
        allowed=ALLOWED[precision],
    )


class _Alone:
    """What `Batches` needs of an accelerator, where one rank takes all."""

    num_processes, process_index = 1, 0

    def __init__(self, device: torch.device) -> None:
        self.device = device


def _batch(recipe: Recipe, data: Split, device: torch.device, kernels: Kernels) -> Batch:
    """The second batch of an epoch: what it takes of tables does not start where they do."""
    few = replace(
        data,
        train_images=data.train_images[: 2 * IMAGES],
        train_labels=data.train_labels[: 2 * IMAGES],
    )
    batches = Batches(few, recipe, cast(Accelerator, _Alone(device)), 0, kernels)
    batches.load()
    return list(batches.batches(batches.epoch(1)))[1]


def _by_the_cpu(recipe: Recipe, batch: Batch) -> tuple[list[str], list[int], float, Tensor]:
    """Names and sizes of the parameters, mean loss, and gradients (17506,), float64."""
    network = seeded_model(recipe, 0).train()
    group = min(recipe.norm_batch_size or IMAGES, IMAGES)
    with torch.autocast("cpu", enabled=False):
        logits = GroupedNetwork(network, group).train()(batch.images)
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=recipe.label_smoothing)
        loss.backward()
    named = dict(network.named_parameters())
    gradients = [p.grad.flatten() for p in named.values() if p.grad is not None]
    sizes = [p.numel() for p in named.values()]
    return list(named), sizes, loss.item(), torch.cat(gradients).double()


def _by_the_device(
    recipe: Recipe, accelerator: Accelerator, batch: Batch, kernels: Kernels
) -> tuple[float, Tensor]:
    """Mean loss, and gradients (17506,), float64, on the CPU; all ranks have the same batch."""
    whole = replace(recipe, batch_size=IMAGES * accelerator.num_processes)
    network = seeded_model(recipe, 0).to(accelerator.device).train()
    step = make_step(network, whole, accelerator, kernels)
    losses = step(batch)
    parameters = [p for group in step.optimizer.param_groups for p in group["params"]]
    gradient = torch.cat([p.grad.detach().flatten() for p in parameters]).cpu().double()
    if accelerator.scaler is not None:
        gradient /= accelerator.scaler.get_scale()
    accelerator.free_memory()
    return losses.mean().item(), gradient


def _difference(right: Tensor, other: Tensor) -> float:
    """Length of the difference as a share of the first's."""
    return float((right - other).norm() / right.norm())


def _each(right: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> list[float]:
    """The same, part by part; short ones as shares of a part of the whole."""
    shortest = _FLOOR * float(torch.cat(right).norm())
    return [
        float((one - two).norm()) / max(float(one.norm()), shortest)
        for one, two in zip(right, other, strict=True)
    ]
