"""How many of the evaluation images a network classifies correctly."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from mnist_cnn.augment import normalise
from mnist_cnn.context import TrainingContext
from mnist_cnn.events import Evaluated, Mistakes

EVALUATION_BATCH = 500
"""Images in a forward pass of an evaluation; the activations of more leave a CPU's cache."""


@torch.inference_mode()
def evaluate(
    model: nn.Module, images: Tensor, labels: Tensor, context: TrainingContext, epoch: int
) -> Evaluated:
    """Evaluate `model` on all images, each exactly once over all ranks.

    Args:
        model: the network itself, not Accelerate's wrapper, on the accelerator's device.
        images: all of them on every rank, (N, 28, 28), uint8, on that device.
        labels: (N,), int64, on that device.
        context: normalisation, precision and ranks.
        epoch: the last epoch trained, for the event.

    Raises:
        AssertionError: the ranks together did not count every image.
    """
    was_training = model.training
    model.eval()
    totals = count(model, images, labels, context)
    model.train(was_training)
    return evaluation_event(totals, len(images), context.accelerator, epoch)


def count(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    context: TrainingContext,
    batch: int = EVALUATION_BATCH,
) -> Tensor:
    """Count this rank's share of `images`: those correct, the sum of losses, and their number.

    Returns:
        (3,), float32, on the device; this does not wait for it.
    """
    accelerator = context.accelerator
    share = slice(accelerator.process_index, None, accelerator.num_processes)
    totals = torch.zeros(3, device=images.device)
    for pixels, truth in zip(images[share].split(batch), labels[share].split(batch), strict=True):
        with accelerator.autocast():
            logits = model(normalise(pixels, context.recipe).unsqueeze(1))
        logits = logits.float()
        totals[0] += (logits.argmax(1) == truth).sum()
        totals[1] += F.cross_entropy(logits, truth, reduction="sum")
        totals[2] += len(truth)
    return totals


def evaluation_event(
    totals: Tensor, images: int, accelerator: Accelerator, epoch: int
) -> Evaluated:
    """The event of all ranks' counts; every rank calls this.

    Raises:
        AssertionError: the ranks together did not count every image.
    """
    correct, loss, counted = accelerator.reduce(totals, "sum").tolist()
    assert counted == images, f"evaluated {counted} images"
    return Evaluated(epoch, samples=int(counted), correct=int(correct), loss=loss / counted)


@torch.inference_mode()
def find_mistakes(
    model: nn.Module, images: Tensor, labels: Tensor, context: TrainingContext
) -> Mistakes:
    """Evaluate again, untimed, and list the images that `model` misclassifies.

    Every rank calls this and gets the same. Arguments as for `evaluate`.
    """
    accelerator = context.accelerator
    was_training = model.training
    model.eval()
    share = slice(accelerator.process_index, None, accelerator.num_processes)
    predicted = torch.zeros_like(labels)
    predictions = []
    for pixels in images[share].split(EVALUATION_BATCH):
        with accelerator.autocast():
            logits = model(normalise(pixels, context.recipe).unsqueeze(1))
        predictions.append(logits.float().argmax(1))
    predicted[share] = torch.cat(predictions)
    predicted = accelerator.reduce(predicted, "sum")
    model.train(was_training)
    wrong = (predicted != labels).nonzero().flatten()
    return Mistakes(tuple(wrong.tolist()), tuple(predicted[wrong].tolist()))
