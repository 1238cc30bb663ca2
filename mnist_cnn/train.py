"""The training loop: one, on Accelerate, for every device and any number of processes.

It yields events and knows no clock; whoever consumes them decides when to stop. An epoch never
waits for the device: its loss is read once, at its end.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from copy import deepcopy

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from mnist_cnn.augment import normalise
from mnist_cnn.batches import Batches
from mnist_cnn.data import Split
from mnist_cnn.errors import UsageError
from mnist_cnn.events import EpochTrained, Evaluated, Event, Finished, Started
from mnist_cnn.model import MnistCnn, build_model, parameter_count
from mnist_cnn.optim import build_schedule
from mnist_cnn.recipe import Kernels, Recipe
from mnist_cnn.seeds import derived_seed
from mnist_cnn.step import evaluated_by, step_of

EVALUATION_BATCH = 500
"""Images a forward pass of an evaluation; the activations of more leave a CPU's cache."""


def seeded_model(recipe: Recipe, seed: int) -> MnistCnn:
    """A network whose initial weights follow from `seed` alone, on the CPU."""
    torch.manual_seed(derived_seed(seed, "weights"))
    return build_model(recipe.dropout)


def train(
    model: MnistCnn,
    recipe: Recipe,
    accelerator: Accelerator,
    data: Split,
    seed: int,
    kernels: Kernels = "torch",
) -> Generator[Event, None, None]:
    """Train `model` in place by `recipe`, yielding an event after each thing worth timing.

    Every rank runs this with the same arguments and sees the same events. After `Finished`,
    `model` holds the weights that the last evaluation measured.

    Args:
        model: the network, freshly initialised.
        recipe: what to do.
        accelerator: device, precision and ranks.
        data: the training and the evaluation images, uint8, on the CPU.
        seed: decides data order, distortions and dropout.
        kernels: what computes a step; compiled ones where `mnist_cnn.native` says that they can.

    Raises:
        UsageError: the batch cannot be shared among the ranks.
    """
    check_batch(recipe.batch_size, len(data.train_images), accelerator.num_processes)
    # Of the global generators, which dropout and the loader's transforms draw from: each rank's
    # are its own. Order and the resident pipeline's distortions have generators of their own.
    random.seed(derived_seed(seed, "rank", accelerator.process_index))
    torch.manual_seed(derived_seed(seed, "rank", accelerator.process_index))

    device = accelerator.device
    batches = Batches(data, recipe, accelerator, seed, kernels)
    images, labels = data.evaluation_images.to(device), data.evaluation_labels.to(device)
    model.to(device).train()
    accelerator.free_memory()  # what an earlier run in this process had prepared
    step = step_of(model, recipe, accelerator, kernels)
    optimizer = step.optimizer
    steps = sum(batches.steps(epoch) for epoch in range(1, recipe.epochs + 1))
    # Not prepared: Accelerate's wrapper would step it once a process.
    schedule = build_schedule(optimizer, recipe, steps)
    if accelerator.scaler is not None:
        # Only a gradient scaler (fp16) needs the wrapper, which looks packages up at every step.
        optimizer = accelerator.prepare(optimizer)
    # Made last: the step has given the model other storage.
    average = _Average(model, recipe) if recipe.average_decay > 0 else None
    evaluated = evaluated_by(average.module if average else model, kernels)

    yield Started(
        parameters=parameter_count(model),
        processes=accelerator.num_processes,
        train_samples=len(data.train_images),
        evaluation_samples=len(data.evaluation_images),
        steps=steps,
    )
    samples = 0
    for epoch in range(1, recipe.epochs + 1):
        costs: list[Tensor] = []
        for batch in batches.epoch(epoch):
            losses = step(batch)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            if average:
                average.after_step()
            costs.append(losses)
            batches.note(batch, losses)
        count = batches.images(epoch)
        samples += count
        loss = accelerator.reduce(torch.cat(costs).sum(), "sum").item() / count
        yield EpochTrained(epoch, batches.steps(epoch), count, loss)
        if recipe.evaluates_after(epoch):
            _share_statistics(model, accelerator)
            if average:
                _share_statistics(average.module, accelerator)
            yield evaluate(evaluated, images, labels, recipe, accelerator, epoch)
    if average:
        model.load_state_dict(average.module.state_dict())
    yield Finished(recipe.epochs, samples)


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
    mine = slice(accelerator.process_index, None, accelerator.num_processes)
    totals = torch.zeros(3, device=images.device)  # correct, sum of losses, count
    for pixels, truth in zip(
        images[mine].split(EVALUATION_BATCH), labels[mine].split(EVALUATION_BATCH), strict=True
    ):
        with accelerator.autocast():
            logits = model(normalise(pixels, recipe).unsqueeze(1))
        logits = logits.float()
        totals[0] += (logits.argmax(1) == truth).sum()
        totals[1] += F.cross_entropy(logits, truth, reduction="sum")
        totals[2] += len(truth)
    correct, loss, count = accelerator.reduce(totals, "sum").tolist()
    assert count == len(images), f"evaluated {count} images"
    model.train(was_training)
    return Evaluated(epoch, samples=int(count), correct=int(correct), loss=loss / count)


def check_batch(batch_size: int, images: int, processes: int) -> None:
    """Refuse a global batch that cannot be shared evenly.

    Raises:
        UsageError: with the nearest number of processes that would do.
    """
    if batch_size % processes:
        below = next(n for n in range(processes, 0, -1) if batch_size % n == 0)
        raise UsageError(
            f"a batch of {batch_size} images does not divide among {processes} processes; "
            f"use {below} processes"
        )
    if images % batch_size and images % batch_size < processes:
        raise UsageError(
            f"the last batch of {images % batch_size} images leaves some of {processes} processes "
            "without one; use fewer processes"
        )


class _Average:
    """The exponential moving average of weights and batch-norm statistics a recipe asks for.

    torch's AveragedModel counts its updates on the CPU, and so makes a GPU wait at every one.
    """

    def __init__(self, model: MnistCnn, recipe: Recipe) -> None:
        self.module = deepcopy(model).requires_grad_(requires_grad=False)
        """The averaged network."""
        self._mine, self._models = _floats(self.module), _floats(model)
        self._recipe = recipe
        self._steps = 0

    @torch.no_grad()
    def after_step(self) -> None:
        """To be called after every optimizer step."""
        self._steps += 1
        if self._steps % self._recipe.average_interval:
            return
        if self._steps == self._recipe.average_interval:
            torch._foreach_copy_(self._mine, self._models)  # random weights are not averaged in
        else:
            torch._foreach_lerp_(self._mine, self._models, 1 - self._recipe.average_decay)


def _floats(model: nn.Module) -> list[Tensor]:
    """Weights and batch-norm statistics, without the count of batches, which nothing reads."""
    return [value for value in model.state_dict().values() if value.is_floating_point()]


def _share_statistics(model: nn.Module, accelerator: Accelerator) -> None:
    """Average batch norm's running statistics over the ranks, so that all evaluate one network."""
    if accelerator.num_processes > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.copy_(accelerator.reduce(buffer, "mean"))
