"""The training loop: one, on Accelerate, for every device and any number of processes.

It yields events and knows no clock; whoever consumes them decides when to stop. An epoch never
waits for the device: its loss is read once, at its end.
"""

from __future__ import annotations

import random
from collections.abc import Generator

import torch
from accelerate import Accelerator

from mnist_cnn.batches import Batches
from mnist_cnn.data.dataset import Split
from mnist_cnn.engine.checkpoint import Checkpoints
from mnist_cnn.engine.eager import EagerEngine, Engine
from mnist_cnn.engine.graph import GraphCache
from mnist_cnn.errors import UsageError
from mnist_cnn.evaluation import evaluated
from mnist_cnn.events import Checkpointed, EpochTrained, Event, Finished, Started
from mnist_cnn.model import MnistCnn, build_model, parameter_count
from mnist_cnn.recipe import Kernels, Recipe
from mnist_cnn.seeds import derived_seed

NO_CHECKPOINTS = (
    "--checkpoint-every is for steps that the loop asks for one by one: add --no-capture "
    "--kernels torch"
)


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
    programs: GraphCache | None = None,
    checkpoints: Checkpoints | None = None,
) -> Generator[Event, None, None]:
    """Train `model` in place by `recipe`, yielding an event after each thing worth timing.

    Every rank runs this with the same arguments and sees the same events. After `Finished`, or
    where it is closed after an evaluation, `model` holds the weights that the last one measured.

    Args:
        model: the network, freshly initialised.
        recipe: what to do.
        accelerator: device, precision and ranks.
        data: the training and the evaluation images, uint8, on the CPU.
        seed: decides data order, distortions and dropout.
        kernels: what computes a step; compiled ones where `mnist_cnn.kernels.native` has them.
        programs: has whole steps done by the device alone, and keeps what that took to set up for
            the next run.
        checkpoints: where states between epochs are kept, and one may be to go on from.

    Raises:
        UsageError: the batch cannot be shared among the ranks, or states cannot be kept.
    """
    check_batch(recipe.batch_size, len(data.train_images), accelerator.num_processes)
    # Of the global generators, which dropout and the loader's transforms draw from: each rank's
    # are its own. Order and the resident pipeline's distortions have generators of their own.
    random.seed(derived_seed(seed, "rank", accelerator.process_index))
    torch.manual_seed(derived_seed(seed, "rank", accelerator.process_index))

    batches = Batches(data, recipe, accelerator, seed, kernels)
    steps = sum(batches.steps(epoch) for epoch in range(1, recipe.epochs + 1))
    engine: Engine
    if programs is not None:
        engine = programs.engine(model, recipe, data, steps)
    else:
        engine = EagerEngine(model, recipe, accelerator, data, batches, kernels, steps)
    trained = 0
    if checkpoints is not None:
        if not isinstance(engine, EagerEngine):
            raise UsageError(NO_CHECKPOINTS)
        if (point := checkpoints.start(seed)) is not None:
            kept = checkpoints.read(point)
            engine.restore(kept["engine"])
            batches.losses.copy_(kept["losses"])
            trained = point.epoch

    yield Started(
        parameters=parameter_count(model),
        processes=accelerator.num_processes,
        train_samples=len(data.train_images),
        evaluation_samples=len(data.evaluation_images),
        steps=steps,
    )
    samples = sum(map(batches.images, range(1, trained + 1)))
    for number in range(trained + 1, recipe.epochs + 1):
        epoch = batches.epoch(number)
        losses = engine.epoch(epoch)
        batches.end_epoch(epoch, losses)
        if number < recipe.epochs:
            batches.draw(number + 1)  # while the device works
        count = batches.images(number)
        samples += count
        loss = accelerator.reduce(losses.sum(), "sum").item() / count
        yield EpochTrained(number, batches.steps(number), count, loss)
        if recipe.evaluates_after(number):
            event = evaluated(engine.count(), len(data.evaluation_images), accelerator, number)
            try:
                yield event
            except GeneratorExit:
                engine.finish()
                raise
        if checkpoints is not None and checkpoints.due(number, recipe.epochs):
            assert isinstance(engine, EagerEngine)
            state = {"engine": engine.state(), "losses": batches.losses}
            yield Checkpointed(number, checkpoints.write(seed, number, state))
    engine.finish()
    yield Finished(recipe.epochs, samples)


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
