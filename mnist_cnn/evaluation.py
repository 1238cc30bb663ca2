"""How many of the held-out images a network classifies rightly."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from mnist_cnn.augment import normalise
from mnist_cnn.events import Evaluated, Mistakes
from mnist_cnn.recipe import Recipe

EVALUATION_BATCH = 500
"""Images a forward pass of an evaluation; the activations of more leave a CPU's cache."""


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    accelerator: Accelerator,
    epoch: int,
) -> Evaluated:
    """Count what `model` classifies rightly among all images, each exactly once over all ranks.

    Args:
        model: the network itself, not Accelerate's wrapper, on the accelerator's device.
        images: all of them on every rank, (N, 28, 28), uint8, on that device.
        labels: (N,), int64, on that device.
        recipe: says how to normalise.
        accelerator: the ranks and the precision.
        epoch: the last epoch trained, for the event.

    Raises:
        AssertionError: the ranks together did not count every image.
    """
    was_training = model.training
    model.eval()
    totals = count(model, images, labels, recipe, accelerator)
    model.train(was_training)
    return evaluated(totals, len(images), accelerator, epoch)


def count(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    accelerator: Accelerator,
    batch: int = EVALUATION_BATCH,
) -> Tensor:
    """Of this rank's share of `images`: classified rightly, the sum of losses, and how many.

    Returns:
        (3,), float32, on the device, which is not waited for.
    """
    mine = slice(accelerator.process_index, None, accelerator.num_processes)
    totals = torch.zeros(3, device=images.device)
    for pixels, truth in zip(images[mine].split(batch), labels[mine].split(batch), strict=True):
        with accelerator.autocast():
            logits = model(normalise(pixels, recipe).unsqueeze(1))
        logits = logits.float()
        totals[0] += (logits.argmax(1) == truth).sum()
        totals[1] += F.cross_entropy(logits, truth, reduction="sum")
        totals[2] += len(truth)
    return totals


def evaluated(totals: Tensor, images: int, accelerator: Accelerator, epoch: int) -> Evaluated:
    """The event of all ranks' counts.

    Raises:
        AssertionError: the ranks together did not count every image.
    """
    correct, loss, counted = accelerator.reduce(totals, "sum").tolist()
    assert counted == images, f"evaluated {counted} images"
    return Evaluated(epoch, samples=int(counted), correct=int(correct), loss=loss / counted)


@torch.inference_mode()
def mistakes(
    model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe, accelerator: Accelerator
) -> Mistakes:
    """Which images `model` takes for something else: evaluated anew, as `count` does, untimed.

    Every rank calls this and gets the same. Arguments as for `evaluate`.
    """
    was_training = model.training
    model.eval()
    mine = slice(accelerator.process_index, None, accelerator.num_processes)
    predicted = torch.zeros_like(labels)
    guesses = []
    for pixels in images[mine].split(EVALUATION_BATCH):
        with accelerator.autocast():
            logits = model(normalise(pixels, recipe).unsqueeze(1))
        guesses.append(logits.float().argmax(1))
    predicted[mine] = torch.cat(guesses)
    predicted = accelerator.reduce(predicted, "sum")
    model.train(was_training)
    wrong = (predicted != labels).nonzero().flatten()
    return Mistakes(tuple(wrong.tolist()), tuple(predicted[wrong].tolist()))
