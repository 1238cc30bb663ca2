"""Computes the gradients of a whole and of a short batch, on however many ranks are launched.

A program, not a test: `tests/mnist_cnn/test_distributed.py` starts it. Arguments: the file to which
rank 0 writes what it computed, and the cases, each a job, kernels, a recipe and the size of a
batch-norm group: "gradients:torch:fast:16".
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from accelerate import Accelerator
from torch import Tensor

from mnist_cnn.batches import Batch, Batches
from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import Split, load
from mnist_cnn.engine.step import Step, make_step
from mnist_cnn.events import EpochTrained, Evaluated
from mnist_cnn.model import MnistCnn
from mnist_cnn.rank import exit_process
from mnist_cnn.recipe import Kernels, recipe_named
from mnist_cnn.train import seeded_model, train

IMAGES = 128 + 96
"""Sizes of the last two batches of 60,000."""


EVALUATED = 1_000


def images(count: int) -> Split:
    """The first images of the training and of the test set."""
    whole = load(offline=True).split("test")
    return Split(
        whole.train_images[:count],
        whole.train_labels[:count],
        whole.evaluation_images[:EVALUATED],
        whole.evaluation_labels[:EVALUATED],
    )


def statistics(network: MnistCnn) -> Tensor:
    """Batch norm's running means and variances of all layers."""
    return torch.cat([b.flatten() for b in network.buffers() if b.is_floating_point()]).clone()


def gradients(context: TrainingContext) -> list[Tensor]:
    """The gradient of all parameters, flattened, for each batch; the weights stay the same."""
    step, _ = step_of(context, torch.float32)
    return [gradient_of(step, batch) for batch in batches_of(context, IMAGES)]


def exact(context: TrainingContext) -> list[Tensor]:
    """`gradients` in float64, then the running statistics.

    In float32, rounding may decide which pixel is the largest of a pool; the gradient then jumps.
    """
    step, network = step_of(context, torch.float64)
    tensors = [gradient_of(step, in_float64(batch)) for batch in batches_of(context, IMAGES)]
    return [*tensors, statistics(network)]


def steps(context: TrainingContext) -> list[Tensor]:
    """The weights and the running statistics after an epoch's steps in float64."""
    step, network = step_of(context, torch.float64)
    for batch in batches_of(context, 2 * IMAGES):
        gradient_of(step, in_float64(batch), update=True)
    return [torch.cat([p.detach().flatten() for p in network.parameters()]), statistics(network)]


def trained(context: TrainingContext) -> list[Tensor]:
    """The mean loss of an epoch and the evaluation's loss, by the training loop itself."""
    events = train(seeded_model(context.recipe, 0), context, images(2 * IMAGES), 0)
    return [torch.tensor(e.loss) for e in events if isinstance(e, EpochTrained | Evaluated)]


def step_of(context: TrainingContext, dtype: torch.dtype) -> tuple[Step, MnistCnn]:
    """A step of a fresh network, and the network."""
    network = seeded_model(context.recipe, 0).to(dtype).train()
    return make_step(network, context), network


def batches_of(context: TrainingContext, count: int) -> Iterator[Batch]:
    """This rank's shares of an epoch's batches."""
    batches = Batches(images(count), context, 0)
    batches.load()
    return batches.batches(batches.epoch(1))


def in_float64(batch: Batch) -> Batch:
    """The same batch, more precise."""
    return replace(batch, images=batch.images.double())


def gradient_of(step: Step, batch: Batch, *, update: bool = False) -> Tensor:
    """The gradient of all parameters; with `update` the optimizer then uses it."""
    step(batch)
    parameters = [p for group in step.optimizer.param_groups for p in group["params"]]
    gradient = torch.cat([p.grad.flatten() for p in parameters]).clone()
    if update:
        step.optimizer.step()
    step.optimizer.zero_grad()
    return gradient


JOBS = {"gradients": gradients, "exact": exact, "steps": steps, "train": trained}


def compute(accelerator: Accelerator, case: str) -> list[Tensor]:
    """What a case asks for."""
    job, kernels, name, group = case.split(":")
    recipe = replace(
        recipe_named(name).with_epochs(1),
        norm_batch_size=int(group),
        # Each rank draws dropout's masks, and the loader's distortions, by itself.
        dropout=0.0,
        pipeline="resident",
    )
    return JOBS[job](TrainingContext(recipe, accelerator, cast(Kernels, kernels)))


def main(path: str, *cases: str) -> None:
    """Compute every case and save it by its name."""
    accelerator = Accelerator(cpu=True, mixed_precision="no", dynamo_backend="no")
    by_case = {case: compute(accelerator, case) for case in cases}
    if accelerator.is_main_process:
        torch.save(by_case, path)
    accelerator.end_training()


if __name__ == "__main__":
    main(*sys.argv[1:])
    exit_process(0)
